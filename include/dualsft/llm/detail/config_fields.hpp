// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/llm/detail/json_document.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dualsft::llm::detail {

/// Reads the fields of one JSON object by name, type and range; every refusal names the field by
/// its path from the top, such as "rope_scaling.factor".
class config_fields {
 public:
  config_fields(const std::string& file, const json& object, std::string prefix = {})
      : file_(&file), object_(&object), prefix_(std::move(prefix)) {}

  [[noreturn]] void fail(std::string_view name, std::string found, std::string expected) const {
    throw input_error(*file_, prefix_ + std::string(name), std::move(found), std::move(expected));
  }

  /// The value, or nullptr where there is none or null stands.
  const json* find(std::string_view name) const {
    const auto found = object_->find(name);
    return found == object_->end() || found->is_null() ? nullptr : &*found;
  }
  bool has(std::string_view name) const { return find(name) != nullptr; }
  /// Whether the key is there, be it with null.
  bool mentions(std::string_view name) const { return object_->contains(name); }

  std::optional<index_t> integer(std::string_view name, index_t least, index_t most) const {
    const json* value = find(name);
    if (value == nullptr) return std::nullopt;
    return in_range(name, *value, least, most);
  }

  /// A field whose absence means `otherwise`, but which must not be null.
  index_t integer_or(std::string_view name, index_t otherwise, index_t least, index_t most) const {
    refuse_null(name, "an integer");
    return integer(name, least, most).value_or(otherwise);
  }

  std::optional<double> positive(std::string_view name) const {
    const json* value = find(name);
    if (value == nullptr) return std::nullopt;
    const double x = value->is_number() ? value->get<double>() : 0;
    if (!std::isfinite(x) || x <= 0) fail(name, describe(*value), "a positive number");
    return x;
  }

  double positive_or(std::string_view name, double otherwise) const {
    refuse_null(name, "a positive number");
    return positive(name).value_or(otherwise);
  }

  double positive_required(std::string_view name) const {
    if (!has(name)) fail(name, mentions(name) ? "null" : "nothing", "a positive number");
    return *positive(name);
  }

  bool boolean_or(std::string_view name, bool otherwise) const {
    const json* value = find(name);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) fail(name, describe(*value), "true or false");
    return value->get<bool>();
  }

  std::optional<std::string> string(std::string_view name) const {
    const json* value = find(name);
    if (value == nullptr) return std::nullopt;
    if (!value->is_string()) fail(name, describe(*value), "a string");
    return value->get<std::string>();
  }

  std::optional<config_fields> object(std::string_view name) const {
    const json* value = find(name);
    if (value == nullptr) return std::nullopt;
    if (!value->is_object()) fail(name, describe(*value), "an object");
    return config_fields(*file_, *value, prefix_ + std::string(name) + ".");
  }

  /// An id, a list of ids, or nothing.
  /// \param otherwise  what absence means
  std::vector<index_t> ids_or(std::string_view name, std::vector<index_t> otherwise) const {
    if (!mentions(name)) return otherwise;
    constexpr index_t most = (index_t{1} << 31) - 1;
    const json* value = find(name);
    std::vector<index_t> ids;
    if (value == nullptr) return ids;
    if (!value->is_array()) return {in_range(name, *value, 0, most)};
    for (const json& element : *value)
      ids.push_back(
          in_range(std::string(name) + "[" + std::to_string(ids.size()) + "]", element, 0, most));
    return ids;
  }

  /// Fields whose effect this library does not have: they must be absent, null or `neutral`.
  void require_neutral(std::string_view name, const json& neutral) const {
    const json* value = find(name);
    if (value != nullptr && *value != neutral)
      fail(name, describe(*value), neutral.is_null() ? "null" : "null or " + describe(neutral));
  }

  const json& raw() const { return *object_; }

 private:
  void refuse_null(std::string_view name, const char* expected) const {
    if (mentions(name) && !has(name)) fail(name, "null", expected);
  }

  index_t in_range(std::string_view name, const json& value, index_t least, index_t most) const {
    const auto refuse = [&] {
      fail(name, describe(value),
           "an integer in [" + std::to_string(least) + ", " + std::to_string(most) + "]");
    };
    if (!value.is_number_integer()) refuse();
    // Numbers from 2^63 on are unsigned, and would wrap.
    if (value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(most))
      refuse();
    const auto x = value.get<std::int64_t>();
    if (x < least || x > most) refuse();
    return x;
  }

  const std::string* file_;
  const json* object_;
  std::string prefix_;
};

}  // namespace dualsft::llm::detail
