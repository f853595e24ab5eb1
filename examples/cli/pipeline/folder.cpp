// SPDX-License-Identifier: Apache-2.0
#include "folder.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <dualsft/error.hpp>
#include <dualsft/io/atomic_file.hpp>
#include <dualsft/io/mapped_file.hpp>
#include <dualsft/llm/checkpoint.hpp>
#include <dualsft/llm/detail/json_document.hpp>
#include <dualsft/version.hpp>
#include <filesystem>

#include "../terminal.hpp"
#include "../usage_error.hpp"

namespace dualsft::cli {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::array all_stages{stage::data, stage::warmup, stage::select, stage::finetune};
constexpr const char* settings_name = "settings.json";

/// What a run writes, in the order of its stages.
constexpr std::array<std::string_view, 16> result_names{"state",
                                                        "warmup",
                                                        "warmup_losses.json",
                                                        "pool_indices.npy",
                                                        "data_scores.npy",
                                                        "selected_examples.npy",
                                                        "selected.jsonl",
                                                        "parameter_mask.safetensors",
                                                        "parameter_scores.safetensors",
                                                        "parameter_statistics.json",
                                                        "examples.json",
                                                        "groups.json",
                                                        "summary.json",
                                                        "model",
                                                        "finetune_losses.json",
                                                        "finetune.json"};

/// Four chains, so that their multiplications overlap.
class digest {
 public:
  void add(std::span<const std::byte> bytes) {
    std::size_t i = 0;
    for (; i + 32 <= bytes.size(); i += 32) {
      std::array<std::uint64_t, 4> words;
      std::memcpy(words.data(), bytes.data() + i, 32);
      for (std::size_t lane = 0; lane < 4; ++lane) mix(lanes_[lane], words[lane]);
    }
    std::array<std::uint64_t, 4> rest{};
    if (i < bytes.size()) std::memcpy(rest.data(), bytes.data() + i, bytes.size() - i);
    for (std::size_t lane = 0; lane < 4; ++lane) mix(lanes_[lane], rest[lane]);
    mix(lanes_[0], bytes.size());
  }
  void add(std::string_view text) { add(std::as_bytes(std::span(text))); }

  std::string text() const {
    std::uint64_t all = 0;
    for (const std::uint64_t lane : lanes_) mix(all, lane);
    std::string out(16, '0');
    for (std::size_t i = 16; i-- > 0; all >>= 4) out[i] = "0123456789abcdef"[all & 15];
    return out;
  }

 private:
  static void mix(std::uint64_t& lane, std::uint64_t word) {
    lane = (lane ^ word) * 0x9e3779b97f4a7c15ULL;
    lane ^= lane >> 29;
  }
  std::array<std::uint64_t, 4> lanes_{1, 2, 3, 4};
};

/// The files that make a checkpoint: weights, their index, config.json and what stands beside them.
std::vector<std::string> files_of(const std::string& path) {
  std::error_code unknown;
  if (!fs::is_directory(path, unknown)) return {path};
  std::vector<std::string> out;
  std::error_code error;
  for (auto it = fs::directory_iterator(path, error); !error && it != fs::directory_iterator();
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name == "config.json" || name.ends_with(".safetensors") ||
        name == "model.safetensors.index.json" ||
        std::ranges::find(llm::companion_files, name) != llm::companion_files.end())
      out.push_back(it->path().string());
  }
  if (error) throw input_error(path, "folder", error.message(), "a readable one");
  std::ranges::sort(out);
  return out;
}

std::uintmax_t bytes_of(const std::string& path) {
  std::uintmax_t sum = 0;
  for (const std::string& file : files_of(path)) {
    std::error_code unknown;
    const auto size = fs::file_size(file, unknown);
    sum += unknown ? 0 : size;
  }
  return sum;
}

/// What atomic_file leaves behind when its process is killed: NAME.partial-PROCESS-NUMBER.
bool is_partial(const std::string& name) {
  const auto at = name.rfind(".partial-");
  if (at == std::string::npos || at == 0) return false;
  const std::string tail = name.substr(at + 9);
  const auto dash = tail.find('-');
  return dash != std::string::npos && dash > 0 && dash + 1 < tail.size() &&
         tail.find_first_not_of("0123456789-") == std::string::npos;
}

void remove_partial_files(const std::string& folder) {
  std::error_code error;
  std::vector<fs::path> found;
  for (auto it = fs::directory_iterator(folder, error); !error && it != fs::directory_iterator();
       it.increment(error))
    if (is_partial(it->path().filename().string()) && it->is_regular_file(error))
      found.push_back(it->path());
  for (const fs::path& path : found) fs::remove(path, error);
}

json values_of(stage which, const pipeline_options& options) {
  json out = json::object();
  for (const setting& s : settings())
    if (s.stages.has(which)) out[std::string(s.name)] = s.get(options);
  return out;
}

/// Whether an option names a file of that stage.
bool reads(stage which, std::string_view option) {
  return std::ranges::any_of(
      settings(), [&](const setting& s) { return s.name == option && s.stages.has(which); });
}

}  // namespace

std::string result_at(const std::string& folder, const std::string& path) {
  std::error_code unknown;
  const fs::path place = fs::weakly_canonical(path, unknown);
  const fs::path run = fs::weakly_canonical(folder, unknown);
  const auto is_part_of = [&](const fs::path& whole) {
    return std::ranges::mismatch(whole, place).in1 == whole.end();
  };
  if (unknown || place.empty()) return {};
  if (place == run) return ".";
  if (place == run / settings_name) return settings_name;
  for (const std::string_view name : result_names)
    if (is_part_of(run / name)) return std::string(name);
  return {};
}

void write_folder(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) throw input_error(path, "output", error.message(), "a writable place");
}

std::string fingerprint(const std::string& path) {
  digest sum;
  for (const std::string& file : files_of(path)) {
    stop_if_interrupted();
    sum.add(fs::path(file).filename().string());
    const mapped_file map(file, access_pattern::sequential);
    sum.add(map.bytes());
  }
  return sum.text();
}

run_folder::run_folder(std::string path, start how) : path_(std::move(path)) {
  std::error_code error;
  made_ = fs::create_directories(path_, error);
  if (error) throw input_error(path_, "output", error.message(), "a writable place");
  lock_ = ::open(file(".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (lock_ < 0)
    throw input_error(path_, "output", dualsft::detail::system_message(errno), "a writable place");
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    ::close(lock_);
    throw input_error(path_, "output", "another process at work in it", "a folder of its own");
  }
  try {
    if (has(settings_name)) {
      if (how == start::fresh)
        throw usage_error(
            "--out " + path_ +
            ": holds a run already; --resume goes on with it, or take another folder");
      settings_ = read(settings_name);
      for (const char* name : {"stages", "options", "outputs"})
        if (!settings_.contains(name) || !settings_[name].is_object())
          throw input_error(file(settings_name), name, "something else", "an object");
      for (const char* name : {"stages", "outputs"})
        for (const auto& [which, values] : settings_[name].items())
          if (!values.is_object())
            throw input_error(file(settings_name), std::string(name) + ", " + which, values.dump(),
                              "an object");
      if (!settings_.contains("version") || settings_["version"] != 1)
        throw input_error(file(settings_name), "version", "another", "1");
      if (!settings_.contains("inputs") || !settings_["inputs"].is_array())
        throw input_error(file(settings_name), "inputs", "something else", "a list");
      for (const auto& input : settings_["inputs"])
        for (const char* key : {"option", "path", "fingerprint"})
          if (!input.is_object() || !input.contains(key) || !input[key].is_string())
            throw input_error(file(settings_name), std::string("inputs, ") + key, "no text",
                              "a text in every entry");
    } else {
      for (const std::string_view name : result_names)
        if (has(name))
          throw usage_error("--out " + path_ + ": holds " + std::string(name) + ", and no " +
                            settings_name +
                            " that says what made it; take another folder, or remove it");
      settings_ = {{"version", 1},
                   {"program", "dualsft " + std::to_string(DUALSFT_VERSION_MAJOR) + "." +
                                   std::to_string(DUALSFT_VERSION_MINOR) + "." +
                                   std::to_string(DUALSFT_VERSION_PATCH)},
                   {"options", ordered_json::object()},
                   {"stages", ordered_json::object()},
                   {"inputs", ordered_json::array()},
                   {"model", nullptr},
                   {"outputs", ordered_json::object()}};
    }
    if (has(settings_name)) {
      remove_partial_files(path_);
      for (const char* name : {"state", "warmup", "model"}) remove_partial_files(file(name));
    }
  } catch (...) {
    ::close(lock_);
    throw;
  }
}

run_folder::~run_folder() {
  if (made_ && !has(settings_name)) {  // a mistake was found before anything began
    ::unlink(file(".lock").c_str());
    ::rmdir(path_.c_str());
  }
  ::close(lock_);
}

bool run_folder::has(std::string_view name) const {
  std::error_code unknown;
  return fs::exists(file(name), unknown);
}

void run_folder::complete(pipeline_options& options, stage which) const {
  for (const setting& s : settings()) {
    if (options.given.contains(s.name)) continue;
    const ordered_json* found = nullptr;
    for (const stage earlier : all_stages) {
      if (earlier > which) break;
      const auto values = settings_["stages"].find(name_of(earlier));
      if (values == settings_["stages"].end()) continue;
      if (const auto value = values->find(s.name); value != values->end()) found = &*value;
    }
    if (found == nullptr) continue;
    const auto refuse = [&] {
      throw input_error(file(settings_name), std::string(s.name), found->dump(),
                        "a value of this option");
    };
    try {
      s.set(options, *found);
    } catch (const json::exception&) {
      refuse();
    } catch (const usage_error&) {
      refuse();
    }
  }
}

bool run_folder::has_left(stage which) const {
  if (which == stage::data)
    return has_left(stage::warmup) || has_left(stage::select) || has_left(stage::finetune);
  const auto outputs = settings_.find("outputs");
  return (outputs != settings_.end() && outputs->contains(name_of(which))) ||
         has("state/" + std::string(name_of(which)));
}

void run_folder::begin(stage which, const pipeline_options& options,
                       const std::vector<std::pair<std::string, std::string>>& inputs) {
  const json values = values_of(which, options);
  ordered_json& known = settings_["stages"];
  // What a stage left was made with the settings of the stages before it, too.
  const bool fixed = std::ranges::any_of(
      all_stages, [&](stage later) { return later >= which && has_left(later); });
  const std::string here = ", as when " + std::string(name_of(which)) + " began in " + path_;
  const auto before = known.find(name_of(which));
  if (fixed && before == known.end())
    throw input_error("command line", std::string(name_of(which)), "a stage to begin",
                      "another folder: " + path_ + " has what a later stage made without it");
  if (fixed) {
    for (const auto& [name, value] : values.items())
      if (!before->contains(name) || json((*before)[name]) != value)
        throw input_error("command line", name, value.dump(),
                          (before->contains(name) ? (*before)[name].dump() : "nothing") + here +
                              " (or take another folder)");
  }
  if (!fixed)  // what an earlier attempt was told to read, and this one is not
    std::erase_if(settings_["inputs"].get_ref<ordered_json::array_t&>(), [&](const auto& entry) {
      const auto option = entry["option"].template get<std::string>();
      const auto is_it = [&](const auto& input) { return input.first == option; };
      return reads(which, option) && std::ranges::none_of(inputs, is_it);
    });
  for (const auto& [option, path] : inputs) {
    const std::string found = fingerprint(path);
    ordered_json entry{
        {"option", option}, {"path", path}, {"bytes", bytes_of(path)}, {"fingerprint", found}};
    bool listed = false;
    for (auto& input : settings_["inputs"]) {
      if (input["option"] != option) continue;
      listed = true;
      if (fixed && input["fingerprint"] != found)
        throw input_error(path, "contents", "fingerprint " + found,
                          input["fingerprint"].get<std::string>() + here);
      if (!fixed) input = entry;
    }
    if (!listed) settings_["inputs"].push_back(entry);
  }
  known[std::string(name_of(which))] = values;
  ordered_json& all = settings_["options"];
  for (const setting& s : settings())
    if (const auto value = values.find(s.name); value != values.end())
      all[std::string(s.name)] = *value;
  write_settings();
}

void run_folder::finish(stage which, const std::vector<std::string>& files,
                        const std::vector<std::string>& measurements) {
  ordered_json made = ordered_json::object();
  for (const std::string& name : files) made[name] = fingerprint(file(name));
  for (const std::string& name : measurements) made[name] = nullptr;
  settings_["outputs"][std::string(name_of(which))] = made;
  write_settings();
}

bool run_folder::is_done(stage which) const {
  const auto outputs = settings_.find("outputs");
  if (outputs == settings_.end() || !outputs->contains(name_of(which))) return false;
  for (const auto& [name, made] : (*outputs)[std::string(name_of(which))].items()) {
    const std::string found = !has(name)       ? "nothing"
                              : made.is_null() ? "a file"
                                               : fingerprint(file(name));
    if (made.is_null() ? found == "nothing" : made != found)
      throw input_error(file(name), "contents", found,
                        (made.is_null() ? "the measurements" : made.dump()) + ", what " +
                            std::string(name_of(which)) +
                            " made (restore it, or take another folder)");
  }
  return true;
}

void run_folder::check_input(std::string_view option, const std::string& path) const {
  const std::string found = fingerprint(path);
  for (const auto& input : settings_["inputs"])
    if (input["option"] == option && input["fingerprint"] != found)
      throw input_error(path, "contents", "fingerprint " + found,
                        input["fingerprint"].get<std::string>() +
                            ": the file must not change while a run uses it");
}

void run_folder::describe_model(ordered_json model) {
  settings_["model"] = std::move(model);
  write_settings();
}

std::string run_folder::key(stage last) const {
  digest sum;
  for (const stage which : all_stages)
    if (const auto values = settings_["stages"].find(name_of(which));
        values != settings_["stages"].end() && which <= last)
      sum.add(std::string(name_of(which)) + json(*values).dump());
  for (const auto& input : settings_["inputs"])
    sum.add(input["option"].get<std::string>() + " " + input["fingerprint"].get<std::string>());
  return sum.text();
}

std::string run_folder::state_file(std::string_view name) {
  write_folder(file("state"));
  return file("state/" + std::string(name));
}

void run_folder::remove_state(std::string_view name) noexcept {
  std::error_code ignored;
  fs::remove(file("state/" + std::string(name)), ignored);
  fs::remove(file("state"), ignored);  // only once it is empty
}

void run_folder::remove(std::string_view name) const noexcept {
  std::error_code ignored;
  fs::remove(file(name), ignored);
}

void run_folder::write(std::string_view name, const ordered_json& value) const {
  atomic_file out(file(name));
  out.write(value.dump(2, ' ', false, json::error_handler_t::replace) + "\n");
  out.commit();
}

ordered_json run_folder::read(std::string_view name) const {
  const std::string path = file(name);
  const std::string text = llm::detail::read_text_file(path, index_t{1} << 28);
  const json value = llm::detail::parse_document(path, "text", text);
  if (!value.is_object())
    throw input_error(path, "text", llm::detail::describe(value), "an object");
  return ordered_json::parse(text);  // the order of keys is part of key()
}

void run_folder::write_settings() const {
  write(settings_name, settings_);
}

}  // namespace dualsft::cli
