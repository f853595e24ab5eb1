// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/config.hpp>
#include <dualsft/io/atomic_file.hpp>
#include <dualsft/io/mapped_file.hpp>
#include <istream>
#include <nlohmann/json.hpp>
#include <ostream>
#include <span>
#include <streambuf>
#include <string>
#include <vector>

/// What an unfinished stage leaves behind, to go on from bit for bit: a line of JSON, then arrays
/// and optimizer states in the machine's own byte order, then a digest of it all. Only this program
/// on this kind of machine reads it back.
namespace dualsft::cli {

class state_writer {
 public:
  /// \param header  position within the stage; `key` is added to it
  state_writer(const std::string& path, const std::string& key, nlohmann::ordered_json header);

  template <class T>
  void values(std::span<const T> values) {
    const auto count = static_cast<std::uint64_t>(values.size());
    bytes(std::as_bytes(std::span(&count, 1)));
    bytes(std::as_bytes(values));
  }

  /// Something with save(stream, name).
  template <class Optimizer>
  void optimizer(const Optimizer& optimizer) {
    optimizer.save(stream_, file_.path());
    stream_.flush();
  }

  /// The file appears. \throws input_error  (field "output") if the disk refuses
  void commit();

 private:
  class buffer : public std::streambuf {
   public:
    explicit buffer(state_writer& owner) : owner_(owner) {}

   protected:
    std::streamsize xsputn(const char* text, std::streamsize size) override {
      owner_.bytes(std::as_bytes(std::span(text, static_cast<std::size_t>(size))));
      return size;
    }
    int_type overflow(int_type c) override {
      const char byte = traits_type::to_char_type(c);
      xsputn(&byte, 1);
      return c;
    }

   private:
    state_writer& owner_;
  };

  void bytes(std::span<const std::byte> bytes);

  atomic_file file_;
  std::uint64_t digest_ = 0;
  buffer buffer_;
  std::ostream stream_;
};

class state_reader {
 public:
  /// \throws input_error  if the file is damaged, or belongs to other settings than `key` says
  state_reader(std::string path, const std::string& key);

  const nlohmann::ordered_json& header() const noexcept { return header_; }

  /// A number of the header. \throws input_error
  index_t number(const char* name) const;

  /// Fills `out`, whose length must be the one that was written.
  template <class T>
  void values(std::span<T> out) {
    std::uint64_t count = 0;
    take(std::as_writable_bytes(std::span(&count, 1)));
    if (count != out.size()) fail(std::to_string(count) + " values", std::to_string(out.size()));
    take(std::as_writable_bytes(out));
  }
  template <class T>
  void values(std::vector<T>& out) {
    std::uint64_t count = 0;
    take(std::as_writable_bytes(std::span(&count, 1)));
    if (count > rest().size() / sizeof(T))
      fail(std::to_string(count) + " values", "what the file has room for");
    out.resize(count);
    take(std::as_writable_bytes(std::span(out)));
  }

  template <class Optimizer>
  void optimizer(Optimizer& optimizer) {
    view from(rest());
    std::istream stream(&from);
    optimizer.load(stream, path_);
    at_ += from.consumed();
  }

 private:
  class view : public std::streambuf {
   public:
    explicit view(std::span<const std::byte> bytes) {
      char* begin = const_cast<char*>(reinterpret_cast<const char*>(bytes.data()));
      setg(begin, begin, begin + bytes.size());
    }
    std::size_t consumed() const { return static_cast<std::size_t>(gptr() - eback()); }
  };

  std::span<const std::byte> rest() const { return map_.bytes().subspan(at_, end_ - at_); }
  void take(std::span<std::byte> out);
  [[noreturn]] void fail(const std::string& found, const std::string& expected) const;

  std::string path_;
  mapped_file map_;
  nlohmann::ordered_json header_;
  std::size_t at_ = 0, end_ = 0;
};

}  // namespace dualsft::cli
