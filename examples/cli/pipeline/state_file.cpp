// SPDX-License-Identifier: Apache-2.0
#include "state_file.hpp"

#include <cstring>
#include <dualsft/error.hpp>
#include <dualsft/llm/detail/json_document.hpp>

namespace dualsft::cli {

namespace {

/// Of a stream of bytes, however it is cut: FNV-1a, eight bytes in a multiplication would depend on
/// the cuts.
std::uint64_t mixed(std::uint64_t digest, std::span<const std::byte> bytes) {
  for (const std::byte b : bytes) digest = (digest ^ static_cast<std::uint64_t>(b)) * 0x100000001b3;
  return digest;
}

constexpr std::size_t tail = sizeof(std::uint64_t);

}  // namespace

state_writer::state_writer(const std::string& path, const std::string& key,
                           nlohmann::ordered_json header)
    : file_(path), buffer_(*this), stream_(&buffer_) {
  stream_.exceptions(std::ios::badbit);
  header["key"] = key;
  const std::string line = header.dump() + "\n";
  bytes(std::as_bytes(std::span(line)));
}

void state_writer::bytes(std::span<const std::byte> bytes) {
  digest_ = mixed(digest_, bytes);
  file_.write(bytes);
}

void state_writer::commit() {
  const std::uint64_t digest = digest_;
  file_.write(std::as_bytes(std::span(&digest, 1)));
  file_.commit();
}

state_reader::state_reader(std::string path, const std::string& key)
    : path_(std::move(path)), map_(path_, access_pattern::sequential) {
  const auto all = map_.bytes();
  std::uint64_t digest = 0;
  if (all.size() >= tail) std::memcpy(&digest, all.data() + (all.size() - tail), tail);
  if (all.size() < tail || mixed(0, all.first(all.size() - tail)) != digest)
    throw input_error(path_, "digest", "damaged contents",
                      "what was written (remove the folder state/ to begin the stage anew)");
  end_ = all.size() - tail;
  const auto* const text = reinterpret_cast<const char*>(all.data());
  const auto* const line = static_cast<const char*>(std::memchr(text, '\n', end_));
  if (line == nullptr) fail("no line of JSON", "one at the start");
  const std::string_view header(text, static_cast<std::size_t>(line - text));
  (void)llm::detail::parse_document(path_, "header", header);
  header_ = nlohmann::ordered_json::parse(header);  // keys stay in order, as in what it becomes
  at_ = static_cast<std::size_t>(line - text) + 1;
  const auto found = header_.is_object() ? header_.find("key") : header_.end();
  if (!header_.is_object() || found == header_.end() || *found != key)
    throw input_error(path_, "key", "the state of other settings or files",
                      "that of this run (remove the folder state/ to begin the stage anew)");
}

index_t state_reader::number(const char* name) const {
  const auto found = header_.find(name);
  if (found == header_.end() || !found->is_number_integer())
    throw input_error(path_, name, "no number", "an integer");
  return found->get<index_t>();
}

void state_reader::take(std::span<std::byte> out) {
  if (out.empty()) return;  // memcpy wants pointers even for nothing
  if (out.size() > rest().size())
    fail(std::to_string(rest().size()) + " bytes", std::to_string(out.size()) + " more");
  std::memcpy(out.data(), rest().data(), out.size());
  at_ += out.size();
}

void state_reader::fail(const std::string& found, const std::string& expected) const {
  throw input_error(path_, "state", found, expected);
}

}  // namespace dualsft::cli
