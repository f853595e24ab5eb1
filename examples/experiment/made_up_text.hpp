// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <dualsft/random.hpp>
#include <iterator>
#include <string>
#include <vector>

/// The built-in corpus of the experiments: two languages that share an alphabet and little else.
namespace dualsft::experiment {

struct text_pair {
  std::string prompt, response;
};

/// Sentences of a tiny grammar: the "general" language of the built-in corpus.
inline std::string general_sentence(random_source& random) {
  static const char* subjects[] = {"the river",   "a merchant",        "the old tower",
                                   "her brother", "the northern army", "a small bird",
                                   "the council", "this village"};
  static const char* verbs[] = {"crossed",          "remembered",  "followed", "destroyed",
                                "was built beside", "wrote about", "defended", "left"};
  static const char* objects[] = {"the valley",       "a broken bridge", "the winter festival",
                                  "the city of salt", "an ancient law",  "the harbour",
                                  "his garden",       "the last train"};
  static const char* ends[] = {" in the spring",  " before the war", "",
                               " without a word", " for many years", " at dawn"};
  const auto pick = [&](const auto& words) {
    return std::string(words[random.below(static_cast<index_t>(std::size(words)))]);
  };
  const std::string sentence =
      pick(subjects) + " " + pick(verbs) + " " + pick(objects) + pick(ends);
  switch (random.below(4)) {
    case 0:
      return "In " + std::to_string(1500 + random.below(500)) + " " + sentence + ". ";
    case 1:
      return "Eva and Tom say: " + sentence + "! ";
    case 2:
      return "They counted " + std::to_string(2 + random.below(900)) +
             " ships = " + std::to_string(1 + random.below(9)) + " fleets. Then " + sentence +
             ".\n";
    default:
      return "So " + sentence + "? ";
  }
}

inline std::string general_text(index_t bytes, std::uint64_t seed) {
  random_source random(seed);
  std::string text;
  while (static_cast<index_t>(text.size()) < bytes) text += general_sentence(random);
  return text;
}

/// Arithmetic told in words: the "target" task of the built-in corpus.
inline text_pair target_pair(random_source& random) {
  static const char* names[] = {"Tom", "Ana", "Lee", "Mia", "Sam", "Eva"};
  static const char* things[] = {"pens", "figs", "eggs", "cups", "hats"};
  const std::string name = names[random.below(6)];
  const std::string thing = things[random.below(5)];
  const index_t a = 2 + random.below(48);
  const index_t b = 1 + random.below(40);
  const std::string x = std::to_string(a);
  const std::string y = std::to_string(b);
  if (random.below(2) == 0)
    return {name + " has " + x + " " + thing + " and buys " + y + " more. How many now? ",
            name + " has " + x + "+" + y + "=" + std::to_string(a + b) + " " + thing + ".\n#### " +
                std::to_string(a + b) + "\n"};
  return {name + " had " + std::to_string(a + b) + " " + thing + " and lost " + y +
              ". How many are left? ",
          "There are " + std::to_string(a + b) + "-" + y + "=" + x + " " + thing + " left.\n#### " +
              x + "\n"};
}

inline std::vector<text_pair> target_pairs(index_t count, std::uint64_t seed) {
  random_source random(seed);
  std::vector<text_pair> pairs;
  for (index_t i = 0; i < count; ++i) pairs.push_back(target_pair(random));
  return pairs;
}

}  // namespace dualsft::experiment
