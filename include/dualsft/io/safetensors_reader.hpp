// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <dualsft/detail/safetensors_data.hpp>
#include <dualsft/detail/safetensors_header.hpp>
#include <dualsft/io/mapped_file.hpp>
#include <dualsft/views.hpp>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace dualsft {

/// One mapped .safetensors file. All members are const and thread-safe; views live as long as it.
class safetensors_reader {
 public:
  /// \throws input_error  if the file is missing, or anything in it contradicts the format
  explicit safetensors_reader(std::string path, access_pattern access = access_pattern::normal)
      : path_(std::move(path)),
        map_(path_, access),
        table_(detail::read_safetensors_table(path_, map_.bytes())) {
    for (std::size_t i = 0; i < table_.tensors.size(); ++i)
      by_name_.emplace(table_.tensors[i].name, i);
  }

  const std::string& path() const noexcept { return path_; }

  /// In the order of the header.
  const std::vector<tensor_info>& tensors() const noexcept { return table_.tensors; }
  const tensor_metadata& metadata() const noexcept { return table_.metadata; }

  /// The tensor of that name, or nullptr.
  const tensor_info* find(std::string_view name) const {
    const auto found = by_name_.find(std::string(name));
    return found == by_name_.end() ? nullptr : &table_.tensors[found->second];
  }

  /// \throws input_error  if there is none of that name
  const tensor_info& at(std::string_view name) const {
    const tensor_info* found = find(name);
    if (found == nullptr)
      throw input_error(path_, "tensor " + detail::in_quotes(name), "nothing", "a tensor");
    return *found;
  }

  /// The stored bytes, whatever their type.
  std::span<const std::byte> bytes(std::string_view name) const { return bytes(at(name)); }

  /// The tensor where it lies in the file, its elements in row-major order; no copy.
  /// \throws input_error  if the file holds another type, or the data is not aligned for T (the
  ///                      format does not promise it): read() copes with both
  template <TensorElement T>
  vector_view<const T> view(std::string_view name) const {
    const tensor_info& tensor = at(name);
    return detail::tensor_view<T>(path_, tensor, bytes(tensor));
  }

  /// Copies elements [first, first + out.size()), converting among F64, F32, F16 and BF16.
  ///
  /// Numerics: widening is exact, narrowing rounds once to nearest even.
  /// \throws invalid_argument  if the range leaves the tensor
  /// \throws input_error       if the file's type does not convert to T
  template <TensorElement T>
  void read(std::string_view name, std::span<T> out, index_t first = 0) const {
    const tensor_info& tensor = at(name);
    detail::copy_tensor(path_, tensor, bytes(tensor), out, first);
  }

 private:
  std::span<const std::byte> bytes(const tensor_info& tensor) const {
    return map_.bytes().subspan(static_cast<std::size_t>(tensor.offset),
                                static_cast<std::size_t>(tensor.bytes));
  }

  std::string path_;
  mapped_file map_;
  detail::safetensors_table table_;
  std::unordered_map<std::string, std::size_t> by_name_;
};

/// A model's tensors in one file or in shards: the same interface over both.
///
/// `path` is a .safetensors file, an index (a .json file with a weight_map), or a folder that holds
/// model.safetensors or model.safetensors.index.json. With an index, its weight_map is the list of
/// tensors: each must be in the shard it names; what a shard holds beyond the list is not shown.
class safetensors_checkpoint {
 public:
  /// \throws input_error  for any fault of the index or of a shard, before any tensor is shown
  explicit safetensors_checkpoint(const std::string& path,
                                  access_pattern access = access_pattern::normal)
      : path_(resolve(path)) {
    if (path_.ends_with(".json"))
      open_index(access);
    else
      shards_.emplace_back(path_, access);
    if (!indexed_)
      for (const tensor_info& tensor : shards_[0].tensors()) add(tensor, 0);
  }

  /// The file or the index that was opened.
  const std::string& path() const noexcept { return path_; }
  const std::vector<safetensors_reader>& shards() const noexcept { return shards_; }

  /// In the order of the file's header, or of the index.
  const std::vector<tensor_info>& tensors() const noexcept { return tensors_; }

  const tensor_info* find(std::string_view name) const {
    const auto found = by_name_.find(std::string(name));
    return found == by_name_.end() ? nullptr : &tensors_[found->second.number];
  }

  /// \copydoc safetensors_reader::at
  const tensor_info& at(std::string_view name) const { return tensors_[place_of(name).number]; }

  /// The shard that holds a tensor.
  const safetensors_reader& shard_of(std::string_view name) const {
    return shards_[place_of(name).shard];
  }

  std::span<const std::byte> bytes(std::string_view name) const {
    return shard_of(name).bytes(name);
  }

  /// \copydoc safetensors_reader::view
  template <TensorElement T>
  vector_view<const T> view(std::string_view name) const {
    return shard_of(name).view<T>(name);
  }

  /// \copydoc safetensors_reader::read
  template <TensorElement T>
  void read(std::string_view name, std::span<T> out, index_t first = 0) const {
    shard_of(name).read(name, out, first);
  }

 private:
  struct place {
    std::size_t number, shard;
  };

  static std::string resolve(const std::string& path) {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0 || !S_ISDIR(status.st_mode)) return path;
    for (const char* name : {"/model.safetensors", "/model.safetensors.index.json"})
      if (::access((path + name).c_str(), F_OK) == 0) return path + name;
    throw input_error(path, "folder", "no tensors",
                      "model.safetensors or model.safetensors.index.json");
  }

  void open_index(access_pattern access) {
    indexed_ = true;
    const mapped_file file(path_);
    if (file.bytes().size() > static_cast<std::size_t>(detail::longest_safetensors_header))
      throw input_error(path_, "file size", std::to_string(file.bytes().size()) + " bytes",
                        "an index of at most 10^8 bytes");
    const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()),
                                file.bytes().size());
    detail::weight_map_parser parser(path_);
    parser.read(text);
    if (!parser.found) throw input_error(path_, "weight_map", "nothing", "an object");

    const auto slash = path_.rfind('/');
    const std::string folder = slash == std::string::npos ? "" : path_.substr(0, slash + 1);
    std::unordered_map<std::string, std::size_t> opened;
    for (const auto& [name, shard] : parser.entries) {
      const auto [at, is_new] = opened.emplace(shard, shards_.size());
      if (is_new) shards_.emplace_back(folder + shard, access);
      const tensor_info* tensor = shards_[at->second].find(name);
      if (tensor == nullptr)
        throw input_error(path_, "weight_map " + detail::in_quotes(name),
                          "no such tensor in " + detail::in_quotes(shard),
                          "a tensor of that shard");
      add(*tensor, at->second);
    }
  }

  void add(const tensor_info& tensor, std::size_t shard) {
    by_name_.emplace(tensor.name, place{tensors_.size(), shard});
    tensors_.push_back(tensor);
  }

  const place& place_of(std::string_view name) const {
    const auto found = by_name_.find(std::string(name));
    if (found == by_name_.end())
      throw input_error(path_, "tensor " + detail::in_quotes(name), "nothing", "a tensor");
    return found->second;
  }

  std::string path_;
  bool indexed_ = false;
  std::vector<safetensors_reader> shards_;
  std::vector<tensor_info> tensors_;
  std::unordered_map<std::string, place> by_name_;
};

}  // namespace dualsft
