// Proves: safetensors files are read and written as the format says; hostile ones are named.
// Against: bytes that the safetensors 0.8 Python package wrote, and a table of broken files.
#include <doctest/doctest.h>

#include <cmath>
#include <dualsft/io/safetensors.hpp>
#include <dualsft/random.hpp>
#include <limits>
#include <support/scratch_folder.hpp>
#include <vector>

using namespace dualsft;
using namespace std::string_literals;
using namespace std::string_view_literals;

namespace {

std::string with_length(std::uint64_t length, std::string_view rest) {
  return std::string(reinterpret_cast<const char*>(&length), 8).append(rest);
}

std::string file_of(std::string_view header, std::string_view data = {}) {
  return with_length(header.size(), header).append(data);
}

// safetensors.numpy.save({"b": float32 [0, 1, 2], "a": float64 [[1.5, 2]], "u": uint8 [1, 255]},
//                        {"k": "v"})
const std::string golden =
    with_length(
        0xc0,
        R"({"__metadata__":{"k":"v"},"a":{"dtype":"F64","shape":[1,2],"data_offsets":[0,16]},)"
        R"("b":{"dtype":"F32","shape":[3],"data_offsets":[16,28]},)"
        R"("u":{"dtype":"U8","shape":[2],"data_offsets":[28,30]}} )") +
    "\0\0\0\0\0\0\xf8?\0\0\0\0\0\0\0@\0\0\0\0\0\0\x80?\0\0\0@\1\xff"s;

template <class T>
std::vector<T> read_all(const auto& reader, std::string_view name) {
  std::vector<T> out(static_cast<std::size_t>(reader.at(name).size));
  reader.read(name, std::span(out));
  return out;
}

}  // namespace

TEST_CASE("a file of the Python package is read, and written again to the byte") {
  const scratch_folder folder;
  const safetensors_reader reader(folder.put("x.safetensors", golden));
  REQUIRE(reader.tensors().size() == 3);
  CHECK(reader.tensors()[0].name == "a");
  CHECK(reader.tensors()[0].shape == std::vector<index_t>{1, 2});
  CHECK(reader.metadata() == tensor_metadata{{"k", "v"}});
  CHECK(read_all<double>(reader, "a") == std::vector<double>{1.5, 2});
  CHECK(read_all<double>(reader, "b") == std::vector<double>{0, 1, 2});
  CHECK(reader.view<double>("a")[0] == 1.5);
  CHECK(reader.view<float>("b")[2] == 2);
  CHECK(reader.view<std::uint8_t>("u")[1] == 255);
  CHECK(reader.find("c") == nullptr);
  CHECK_THROWS_WITH_AS(reader.at("c"), doctest::Contains("tensor 'c': found nothing"), input_error);

  safetensors_writer writer(
      folder / "y.safetensors",
      {{"a", tensor_type::f64, {1, 2}}, {"b", tensor_type::f32, {3}}, {"u", tensor_type::u8, {2}}},
      {{"k", "v"}});
  writer.write("a", std::vector<float>{1.5f, 2});
  writer.write_bytes("b", reader.bytes("b"));
  writer.write("u", std::vector<std::uint8_t>{1, 255});
  CHECK(folder.file_count() == 2);  // x and a temporary
  writer.finish();
  CHECK(file_bytes(folder / "y.safetensors") == golden);
  CHECK(folder.file_count() == 2);
}

TEST_CASE("floating-point types convert, others do not") {
  const scratch_folder folder;
  random_source random(3);
  std::vector<double> x(1000);
  for (double& value : x) value = random.normal();
  const std::vector<std::int64_t> integers{-1, std::numeric_limits<std::int64_t>::max()};
  safetensors_writer writer(folder / "x.safetensors", {{"f64", tensor_type::f64, {10, 100}},
                                                       {"i64", tensor_type::i64, {2}},
                                                       {"f32", tensor_type::f32, {1000}},
                                                       {"f16", tensor_type::f16, {1000}},
                                                       {"bf16", tensor_type::bf16, {1000}},
                                                       {"none", tensor_type::f32, {3, 0}},
                                                       {"one", tensor_type::f32, {}}});
  CHECK_THROWS_AS(writer.write("i64", integers), invalid_argument);  // not the first
  CHECK_THROWS_AS(writer.write("f64", integers), invalid_argument);  // wrong number
  writer.write("f64", x);
  CHECK_THROWS_AS(writer.write("i64", std::vector<float>{1, 2}), invalid_argument);
  writer.write("i64", integers);
  for (const char* name : {"f32", "f16", "bf16"}) writer.write(name, x);
  CHECK_THROWS_AS(writer.finish(), invalid_argument);
  writer.write("none", std::vector<float>{});
  writer.write("one", std::array{2.5});
  writer.finish();

  const safetensors_reader reader(folder / "x.safetensors");
  CHECK(read_all<double>(reader, "f64") == x);
  CHECK(read_all<std::int64_t>(reader, "i64") == integers);
  CHECK(read_all<float>(reader, "none").empty());
  CHECK(read_all<float>(reader, "one") == std::vector<float>{2.5f});
  for (std::size_t i = 0; i < x.size(); ++i) {
    CAPTURE(i);
    REQUIRE(read_all<double>(reader, "f32")[i] == static_cast<double>(static_cast<float>(x[i])));
    REQUIRE(reader.view<float16>("f16")[static_cast<index_t>(i)] == to_float16(x[i]));
    REQUIRE(reader.view<bfloat16>("bf16")[static_cast<index_t>(i)] == to_bfloat16(x[i]));
  }
  const auto bf16 = read_all<float>(reader, "bf16");
  const auto narrowed = read_all<bfloat16>(reader, "f64");
  CHECK(narrowed[17] == to_bfloat16(x[17]));
  CHECK(bf16[17] == to_float(to_bfloat16(x[17])));

  std::vector<float> part(7);
  reader.read("bf16", std::span(part), 990);
  CHECK(part[6] == bf16[996]);
  CHECK_THROWS_AS(reader.read("bf16", std::span(part), 994), invalid_argument);
  CHECK_THROWS_AS(reader.read("bf16", std::span(part), -1), invalid_argument);
  CHECK_THROWS_WITH_AS(reader.view<double>("f32"),
                       doctest::Contains("tensor 'f32' dtype: found F32, expected F64"),
                       input_error);
  CHECK_THROWS_AS(read_all<double>(reader, "i64"), input_error);
  CHECK_THROWS_AS(read_all<std::uint8_t>(reader, "f32"), input_error);
}

TEST_CASE("data that is not aligned can be read but not viewed") {
  const scratch_folder folder;
  const safetensors_reader reader(folder.put(
      "x.safetensors", file_of(R"({"u":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                               R"("a":{"dtype":"F64","shape":[1],"data_offsets":[1,9]}} )",
                               "\7\0\0\0\0\0\0\xf8?"s)));
  CHECK_THROWS_WITH_AS(reader.view<double>("a"), doctest::Contains("to view; or read a copy"),
                       input_error);
  CHECK(read_all<double>(reader, "a") == std::vector<double>{1.5});
  CHECK(read_all<float>(reader, "a") == std::vector<float>{1.5f});
}

TEST_CASE("types without arithmetic here are listed, sized and copied as bytes") {
  const scratch_folder folder;
  const safetensors_reader reader(folder.put(
      "x.safetensors", file_of(R"({"m":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]},)"
                               R"("i":{"dtype":"I32","shape":[1],"data_offsets":[2,6]},)"
                               R"("f":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[6,8]}})",
                               "\1\0\1\0\0\0ab"s)));
  CHECK(reader.at("i").type == tensor_type::i32);
  CHECK(reader.bytes("i").size() == 4);
  CHECK(read_all<std::uint8_t>(reader, "m") == std::vector<std::uint8_t>{1, 0});
  CHECK_THROWS_WITH_AS(read_all<float>(reader, "f"),
                       doctest::Contains("dtype: found F8_E4M3, expected F64, F32, F16 or BF16"),
                       input_error);
}

TEST_CASE("blocks stream through the writer, and equal arguments give equal bytes") {
  const scratch_folder folder;
  const index_t n = 150'001;
  for (const char* name : {"x", "y"}) {
    safetensors_writer writer(folder / name, {{"w", tensor_type::bf16, {n}}},
                              {{"z", "\n\""}, {"a", "\xc3\xa9"}});
    index_t expected = 0;
    writer.write_blocks<float>("w", [&](index_t first, std::span<float> block) {
      CHECK(first == expected);
      expected += static_cast<index_t>(block.size());
      for (std::size_t i = 0; i < block.size(); ++i)
        block[i] = static_cast<float>((first + static_cast<index_t>(i)) % 251);
    });
    CHECK(expected == n);
    writer.finish();
  }
  CHECK(file_bytes(folder / "x") == file_bytes(folder / "y"));
  const safetensors_reader reader(folder / "x");
  CHECK(reader.metadata() == tensor_metadata{{"z", "\n\""}, {"a", "\xc3\xa9"}});
  CHECK((reader.at("w").offset % 8) == 0);
  const auto w = read_all<float>(reader, "w");
  index_t wrong = 0;
  for (index_t i = 0; i < n; ++i)
    wrong += w[static_cast<std::size_t>(i)] != static_cast<float>(i % 251);
  CHECK(wrong == 0);
}

TEST_CASE("a producer that throws spoils the writer, not the file") {
  const scratch_folder folder;
  const index_t n = 150'001;  // three blocks
  {
    safetensors_writer writer(folder / "x", {{"w", tensor_type::f32, {n}}});
    const auto fail_late = [&](index_t first, std::span<float> block) {
      std::fill(block.begin(), block.end(), 1.0F);
      if (first > 0) throw std::runtime_error("the producer");
    };
    CHECK_THROWS_WITH_AS(writer.write_blocks<float>("w", fail_late), "the producer",
                         std::runtime_error);
    const std::vector<float> whole(static_cast<std::size_t>(n), 2.0F);
    CHECK_THROWS_WITH_AS(writer.write("w", whole), doctest::Contains("incomplete"),
                         invalid_argument);
    CHECK_THROWS_AS(writer.finish(), invalid_argument);
  }
  CHECK(folder.file_count() == 0);
}

TEST_CASE("a writer refuses what no reader would take, and leaves nothing behind") {
  const scratch_folder folder;
  const auto make = [&](std::vector<tensor_spec> specs, const tensor_metadata& metadata = {}) {
    safetensors_writer writer(folder / "x", std::move(specs), metadata);
  };
  CHECK_THROWS_AS(make({{"", tensor_type::f32, {1}}}), invalid_argument);
  CHECK_THROWS_AS(make({{"__metadata__", tensor_type::f32, {1}}}), invalid_argument);
  CHECK_THROWS_AS(make({{"a", tensor_type::f32, {1}}, {"a", tensor_type::f32, {1}}}),
                  invalid_argument);
  CHECK_THROWS_AS(make({{"a", tensor_type::f32, {-1}}}), invalid_argument);
  CHECK_THROWS_AS(make({{"a", tensor_type::f32, {index_t{1} << 40, index_t{1} << 40}}}),
                  invalid_argument);
  CHECK_THROWS_AS(make({{"a\xff", tensor_type::f32, {1}}}), invalid_argument);
  CHECK_THROWS_AS(make({{"a", tensor_type::f32, {1}}}, {{"k", "\x80"}}), invalid_argument);
  CHECK_NOTHROW(make({{"a", tensor_type::f32, {1}}}));
  CHECK(folder.file_count() == 0);
  safetensors_writer empty(folder / "x", {});
  empty.finish();
  CHECK(file_bytes(folder / "x") == file_of("{}      "));
  CHECK(safetensors_reader(folder / "x").tensors().empty());
}

TEST_CASE("hostile files are refused with the field's name") {
  const scratch_folder folder;
  const auto entry = [](std::string_view dtype, std::string_view shape, std::string_view offsets,
                        std::string_view name = "a") {
    return "\""s.append(name) + "\":{\"dtype\":"s.append(dtype) + ",\"shape\":"s.append(shape) +
           ",\"data_offsets\":"s.append(offsets) + "}";
  };
  const auto one = [&](std::string_view dtype, std::string_view shape, std::string_view offsets) {
    return file_of("{" + entry(dtype, shape, offsets) + "}", "12345678");
  };
  const auto two = [&](std::string_view first, std::string_view second) {
    return file_of(
        "{" + entry("\"U8\"", "[4]", first) + "," + entry("\"U8\"", "[4]", second, "b") + "}",
        "12345678");
  };
  const std::string f32 = "\"F32\"";
  REQUIRE_NOTHROW(safetensors_reader(folder.put("ok", one(f32, "[2]", "[0,8]"))));
  REQUIRE_NOTHROW(safetensors_reader(folder.put("ok", two("[4,8]", "[0,4]"))));

  const std::string deep(100'000, '[');
  std::string deep_objects;
  for (int i = 0; i < 10'000; ++i) deep_objects += "{\"a\":";
  const struct {
    std::string_view field;
    std::string bytes;
  } table[] = {
      {"header length", ""},
      {"header length", "1234567"},
      {"header length", with_length(std::uint64_t{1} << 63, "{}")},
      {"header length", with_length(~std::uint64_t{0}, "{}")},
      {"header length", with_length(~std::uint64_t{0} - 7, "{}")},
      {"header length", with_length(3, "{}")},
      {"header length", with_length(100'000'001, "{}")},
      {"header", with_length(0, "{}")},
      {"header", file_of("[]")},
      {"header", file_of("null")},
      {"header", file_of(" {}")},
      {"header", file_of("\xef\xbb\xbf{}")},
      {"header", file_of("{")},
      {"header", file_of("{}}")},
      {"header", file_of("{}\0"s)},
      {"header", file_of("{\"a")},
      {"header", file_of("{\"\xff\":{}}")},
      {"header", file_of("{\"\":{}}")},
      {"header", file_of("{'a':{}}")},
      {"header", file_of("{/**/}")},
      {"tensor 'a'", file_of("{\"a\":1}")},
      {"tensor 'a'", file_of("{\"a\":-1}")},
      {"tensor 'a'", file_of("{\"a\":1.5}")},
      {"tensor 'a'", file_of("{\"a\":null}")},
      {"tensor 'a'", file_of("{\"a\":true}")},
      {"tensor 'a'", file_of("{\"a\":\"x\"}")},
      {"tensor 'a'", file_of("{\"a\":" + deep)},
      {"tensor 'a' 'a'", file_of(deep_objects)},
      {"tensor 'a'",
       file_of("{" + entry(f32, "[2]", "[0,8]") + "," + entry(f32, "[2]", "[0,8]") + "}",
               "12345678")},
      {"tensor 'a' dtype", file_of("{\"a\":{}}")},
      {"tensor 'a' shape", file_of("{\"a\":{\"dtype\":\"F32\"}}")},
      {"tensor 'a' data_offsets", file_of("{\"a\":{\"dtype\":\"F32\",\"shape\":[]}}")},
      {"tensor 'a' 'x'", file_of("{\"a\":{\"x\":1}}")},
      {"tensor 'a' dtype", file_of("{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}")},
      {"tensor 'a' dtype", one("\"F33\"", "[2]", "[0,8]")},
      {"tensor 'a' dtype", one("\"f32\"", "[2]", "[0,8]")},
      {"tensor 'a' dtype", one("32", "[2]", "[0,8]")},
      {"tensor 'a' dtype", one("[\"F32\"]", "[2]", "[0,8]")},
      {"tensor 'a' dtype", one("{}", "[2]", "[0,8]")},
      {"tensor 'a' dtype", one("null", "[2]", "[0,8]")},
      {"tensor 'a' shape", one(f32, "2", "[0,8]")},
      {"tensor 'a' shape", one(f32, "\"2\"", "[0,8]")},
      {"tensor 'a' shape", one(f32, "{}", "[0,8]")},
      {"tensor 'a' shape", one(f32, "[-2]", "[0,8]")},
      {"tensor 'a' shape", one(f32, "[2.0]", "[0,8]")},
      {"tensor 'a' shape", one(f32, "[2e0]", "[0,8]")},
      {"tensor 'a' shape", one(f32, "[1e999]", "[0,8]")},
      {"tensor 'a' shape", one(f32, "[\"2\"]", "[0,8]")},
      {"tensor 'a' shape", one(f32, "[true]", "[0,8]")},
      {"tensor 'a' shape", one(f32, "[[2]]", "[0,8]")},
      {"tensor 'a' shape", one(f32, "[9223372036854775808]", "[0,8]")},
      {"tensor 'a' shape", one(f32, "[18446744073709551616]", "[0,8]")},
      {"tensor 'a' shape", one(f32, "[4294967296,4294967296]", "[0,8]")},
      {"tensor 'a' shape", one(f32, "[0,4294967296,4294967296]", "[0,0]")},
      {"tensor 'a' shape", one(f32, "[4611686018427387904]", "[0,8]")},
      {"tensor 'a' shape", one(f32,
                               "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,"
                               "1,1]",
                               "[0,4]")},
      {"tensor 'a' data_offsets", one(f32, "[2]", "[0]")},
      {"tensor 'a' data_offsets", one(f32, "[2]", "[]")},
      {"tensor 'a' data_offsets", one(f32, "[2]", "[0,8,9]")},
      {"tensor 'a' data_offsets", one(f32, "[2]", "[8,0]")},
      {"tensor 'a' data_offsets", one(f32, "[2]", "[-8,0]")},
      {"tensor 'a' data_offsets", one(f32, "[2]", "[0,4]")},
      {"tensor 'a' data_offsets", one(f32, "[3]", "[0,8]")},
      {"tensor 'a' data_offsets", one(f32, "[2]", "[1,9]")},
      {"tensor 'a' data_offsets", one(f32, "[3]", "[0,12]")},
      {"tensor 'a' data_offsets", one(f32, "[2]", "[9223372036854775800,9223372036854775808]")},
      {"tensor 'a' data_offsets", one(f32, "[2]", "[9223372036854775799,9223372036854775807]")},
      {"tensor 'a' data_offsets", one(f32, "[2]", "{}")},
      {"tensor 'b' data_offsets", two("[0,4]", "[2,6]")},
      {"tensor 'b' data_offsets", two("[0,4]", "[0,4]")},
      {"tensor 'b' data_offsets", two("[0,4]", "[5,9]")},
      {"tensor 'b' data_offsets", two("[0,4]", "[9,13]")},
      {"file size", one(f32, "[1]", "[0,4]")},
      {"file size", one(f32, "[2]", "[0,8]") + "x"},
      {"tensor 'a' data_offsets", file_of("{" + entry(f32, "[2]", "[0,8]") + "}", "1234567")},
      {"file size", file_of("{}", "x")},
      {"__metadata__", file_of("{\"__metadata__\":[]}")},
      {"__metadata__", file_of("{\"__metadata__\":null}")},
      {"__metadata__ 'k'", file_of("{\"__metadata__\":{\"k\":1}}")},
      {"__metadata__ 'k'", file_of("{\"__metadata__\":{\"k\":{}}}")},
      {"__metadata__ 'k'", file_of("{\"__metadata__\":{\"k\":[\"v\"]}}")},
      {"__metadata__ 'k'", file_of("{\"__metadata__\":{\"k\":\"v\",\"k\":\"v\"}}")},
      {"__metadata__", file_of("{\"__metadata__\":{},\"__metadata__\":{}}")},
      {"tensor 'a\\x0ab'", file_of("{\"a\\nb\":0}")},
  };
  for (const auto& row : table) {
    const std::string path = folder.put("bad.safetensors", row.bytes);
    CAPTURE(row.field);
    CAPTURE(row.bytes.substr(0, 200));
    try {
      const safetensors_reader reader(path);
      FAIL_CHECK("accepted");
    } catch (const input_error& error) {
      CHECK(error.field() == row.field);
      CHECK(error.file() == path);
      CHECK(std::string(error.what()).find_first_of("\n\r") == std::string::npos);
      CHECK(std::string(error.what()).size() < 600);
    }
  }
  for (std::size_t n = 0; n < golden.size(); ++n)
    CHECK_THROWS_AS(safetensors_reader(folder.put("cut", std::string_view(golden).substr(0, n))),
                    input_error);
  CHECK_THROWS_AS(safetensors_reader(folder / "none"), input_error);
}

TEST_CASE("shards are one checkpoint through their index") {
  const scratch_folder folder;
  const auto write = [&](const char* file, const char* tensor, float value) {
    safetensors_writer writer(folder / file, {{tensor, tensor_type::f32, {2}}});
    writer.write(tensor, std::array{value, value + 1});
    writer.finish();
  };
  write("s1.safetensors", "a", 1);
  write("s2.safetensors", "b", 3);
  const std::string index = R"({"metadata":{"total_size":16,"x":[{"weight_map":1}]},"weight_map":)"
                            R"({"b":"s2.safetensors","a":"s1.safetensors"}})";
  const std::string path = folder.put("model.safetensors.index.json", index);
  for (const std::string& opened : {path, folder / "", std::string(folder / "").append(".")}) {
    const safetensors_checkpoint model(opened);
    REQUIRE(model.tensors().size() == 2);
    CHECK(model.tensors()[0].name == "b");
    CHECK(model.shards().size() == 2);
    CHECK(read_all<double>(model, "a") == std::vector<double>{1, 2});
    CHECK(model.view<float>("b")[1] == 4);
    CHECK(model.bytes("b").size() == 8);
    CHECK(model.shard_of("a").path().ends_with("s1.safetensors"));
    CHECK(model.find("c") == nullptr);
    CHECK_THROWS_AS(model.at("c"), input_error);
  }
  const safetensors_checkpoint single(folder / "s1.safetensors");
  CHECK(single.tensors().size() == 1);
  CHECK(read_all<float>(single, "a")[0] == 1);

  const struct {
    std::string_view field, text;
  } table[] = {
      {"index", ""},
      {"index", "[]"},
      {"index", "1"},
      {"index", "{"},
      {"index", "{\"weight_map\":{}}\0"sv},
      {"weight_map", "{}"},
      {"weight_map", R"({"metadata":{"weight_map":{}}})"},
      {"'weight_map'", R"({"weight_map":[]})"},
      {"'weight_map'", R"({"weight_map":"s1.safetensors"})"},
      {"weight_map", R"({"weight_map":{},"weight_map":{}})"},
      {"weight_map 'a'", R"({"weight_map":{"a":1}})"},
      {"weight_map 'a'", R"({"weight_map":{"a":["s1.safetensors"]}})"},
      {"weight_map 'a'", R"({"weight_map":{"a":"s1.safetensors","a":"s1.safetensors"}})"},
      {"weight_map 'c'", R"({"weight_map":{"c":"s1.safetensors"}})"},
      {"weight_map 'a'", R"({"weight_map":{"a":""}})"},
      {"weight_map 'a'", R"({"weight_map":{"a":"/etc/passwd"}})"},
      {"weight_map 'a'", R"({"weight_map":{"a":"../s1.safetensors"}})"},
      {"weight_map 'a'", R"({"weight_map":{"a":"x/../../s1.safetensors"}})"},
      {"weight_map 'a'", R"({"weight_map":{"a":"x/.."}})"},
      {"weight_map 'a'", R"({"weight_map":{"a":"..\\s1"}})"},
      {"weight_map 'a'", R"({"weight_map":{"a":"s1.safetensors\u0000"}})"},
      {"file", R"({"weight_map":{"a":"s3.safetensors"}})"},
      {"file", R"({"weight_map":{"a":"."}})"},
      {"header length", R"({"weight_map":{"a":"model.safetensors.index.json"}})"},
  };
  for (const auto& row : table) {
    CAPTURE(row.text);
    folder.put("model.safetensors.index.json", row.text);
    try {
      const safetensors_checkpoint model(path);
      FAIL_CHECK("accepted");
    } catch (const input_error& error) {
      CHECK(error.field() == row.field);
    }
  }
  const std::string deep = "{\"metadata\":" + std::string(100'000, '[');
  CHECK_THROWS_WITH_AS(safetensors_checkpoint(folder.put("deep.json", deep)),
                       doctest::Contains("nested deeper than 32"), input_error);
  const scratch_folder nothing;
  CHECK_THROWS_WITH_AS(safetensors_checkpoint(nothing / ""),
                       doctest::Contains("folder: found no tensors"), input_error);
}
