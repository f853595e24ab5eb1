// Proves: .npy files are read and written as numpy does, in any rectangle; hostile ones are named.
// Against: bytes that numpy 1.26 wrote, element formulas, and a table of broken files.
#include <doctest/doctest.h>

#include <cmath>
#include <dualsft/io/npy.hpp>
#include <dualsft/random.hpp>
#include <limits>
#include <numeric>
#include <support/scratch_folder.hpp>
#include <thread>
#include <vector>

using namespace dualsft;
using namespace std::string_literals;

namespace {

// A version 1.0 header of 128 bytes, as numpy.save writes for short shapes.
std::string numpy_header(std::string text) {
  text.resize(117, ' ');
  return "\x93NUMPY\x01\x00v\x00"s + text + "\n";
}

std::string header_of(std::string_view text, int major = 1) {
  std::string out = "\x93NUMPY"s + static_cast<char>(major) + "\0"s;
  for (int byte = 0; byte < (major == 1 ? 2 : 4); ++byte)
    out += static_cast<char>((text.size() >> (8 * byte)) & 0xff);
  return out.append(text);
}

double element(index_t i, index_t j) {
  return static_cast<double>(1000 * i + j) / 64.0;
}

}  // namespace

TEST_CASE("the bytes are numpy's own") {
  const scratch_folder folder;
  // np.save of np.arange(6.).reshape(2, 3), of [True, False], and of np.int64([0, 1, 2]).
  const std::vector<double> x{0, 1, 2, 3, 4, 5};
  npy_write(folder / "x.npy", x, {2, 3});
  CHECK(file_bytes(folder / "x.npy") ==
        numpy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }") +
            bytes_of(std::span<const double>(x)));
  npy_write(folder / "b.npy", std::array{true, false}, {2});
  CHECK(file_bytes(folder / "b.npy") ==
        numpy_header("{'descr': '|b1', 'fortran_order': False, 'shape': (2,), }") + "\1\0"s);
  npy_write(folder / "i.npy", std::vector<std::int64_t>{0, 1, 2}, {3});
  CHECK(file_bytes(folder / "i.npy") ==
        numpy_header("{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }") + "\0"s +
            std::string(7, '\0') + "\1"s + std::string(7, '\0') + "\2"s + std::string(7, '\0'));
  npy_writer<float> fortran(folder / "f.npy", {2, 3}, array_order::fortran);
  fortran.append(std::vector<float>{0, 3, 1, 4, 2, 5});
  fortran.finish();
  CHECK(file_bytes(folder / "f.npy").substr(0, 128) ==
        numpy_header("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }"));
  npy_write(folder / "scalar.npy", std::array{3.5}, {});
  CHECK(file_bytes(folder / "scalar.npy").substr(0, 128) ==
        numpy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (), }"));
  CHECK(folder.file_count() == 5);  // no temporaries left
}

TEST_CASE("headers of all versions and spellings are understood") {
  const scratch_folder folder;
  const std::string data(24, '\0');
  for (const int version : {1, 2, 3})
    for (const char* text : {"{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }  \n",
                             "{'shape':(3L,),'descr':'<f8','fortran_order':False}",
                             "{\"fortran_order\": False, \"descr\": \"<f8\", \"shape\": (3,)}"}) {
      const npy_reader reader(folder.put("x.npy", header_of(text, version) + data));
      CHECK(reader.shape() == std::vector<index_t>{3});
      CHECK(reader.size() == 3);
      CHECK(reader.type() == npy_type::float64);
      CHECK(reader.order() == array_order::c);
      CHECK(reader.holds<double>());
    }
}

TEST_CASE_TEMPLATE("rectangles of both orders land in views of any strides", T, float, double) {
  const scratch_folder folder;
  for (const index_t rows : {0, 1, 2, 3, 33})
    for (const index_t cols : {0, 1, 3, 31, 257})
      for (const auto order : {array_order::c, array_order::fortran}) {
        CAPTURE(rows);
        CAPTURE(cols);
        CAPTURE(int(order));
        npy_writer<float> writer(folder / "x.npy", {rows, cols}, order);
        if (order == array_order::c)
          for (index_t i = 0; i < rows; ++i)
            for (index_t j = 0; j < cols; ++j)
              writer.append(std::array{static_cast<float>(element(i, j))});
        else
          for (index_t j = 0; j < cols; ++j)
            for (index_t i = 0; i < rows; ++i)
              writer.append(std::array{static_cast<float>(element(i, j))});
        writer.finish();

        const npy_reader reader(folder / "x.npy");
        REQUIRE(reader.rows() == rows);
        REQUIRE(reader.cols() == cols);
        const auto check = [&](index_t row, index_t col, index_t height, index_t width) {
          // Room around every element shows whether anything else is written.
          std::vector<T> memory(static_cast<std::size_t>(height * width * 6 + 1), T(-1));
          const matrix_view<T> views[] = {
              {memory.data(), height, width},
              {memory.data(), height, width, 1, std::max<index_t>(height, 1)},
              {memory.data(), height, width, width * 3, 2},
              {memory.data(), height, width, width + 2, 1},
              {memory.data(), height, width, 1, height + 2},
          };
          for (const auto& view : views) {
            std::fill(memory.begin(), memory.end(), T(-1));
            reader.read_rectangle(row, col, view);
            index_t wrong = 0;
            for (index_t i = 0; i < height; ++i)
              for (index_t j = 0; j < width; ++j)
                wrong += view(i, j) != static_cast<T>(element(row + i, col + j));
            REQUIRE(wrong == 0);
            REQUIRE(std::count(memory.begin(), memory.end(), T(-1)) ==
                    static_cast<index_t>(memory.size()) - height * width);
          }
        };
        check(0, 0, rows, cols);
        if (rows > 2 && cols > 2) {
          check(1, 0, rows - 1, cols);
          check(0, 1, rows, cols - 2);
          check(rows - 1, cols - 1, 1, 1);
          check(1, 2, 0, 1);
        }
        // A mapping shows the same.
        const auto mapping = reader.map<float>();
        index_t wrong = 0;
        for (index_t i = 0; i < rows; ++i)
          for (index_t j = 0; j < cols; ++j)
            wrong += mapping.matrix()(i, j) != static_cast<float>(element(i, j));
        REQUIRE(wrong == 0);
      }
}

TEST_CASE("long runs pass through the buffer in pieces, on several threads at once") {
  const scratch_folder folder;
  constexpr index_t n = 100'003;  // more than one buffer of either type
  std::vector<double> x(n);
  random_source random(11);
  for (double& value : x) value = random.normal();
  npy_write(folder / "x.npy", x, {n});
  const npy_reader reader(folder / "x.npy");
  std::vector<float> narrow(n);
  {
    std::vector<std::jthread> threads;
    for (index_t part = 0; part < 4; ++part)
      threads.emplace_back([&, part] {
        const index_t begin = n * part / 4, end = n * (part + 1) / 4;
        reader.read(begin, std::span(narrow).subspan(static_cast<std::size_t>(begin),
                                                     static_cast<std::size_t>(end - begin)));
      });
  }
  index_t wrong = 0;
  for (std::size_t i = 0; i < x.size(); ++i) wrong += narrow[i] != static_cast<float>(x[i]);
  CHECK(wrong == 0);
  CHECK(npy_read_vector<double>(folder / "x.npy") == x);
  CHECK_THROWS_AS(reader.read(n - 1, std::span(narrow).first(2)), invalid_argument);
  CHECK_THROWS_AS(reader.read(-1, std::span(narrow).first(2)), invalid_argument);
}

TEST_CASE("types that do not fit are refused by name") {
  const scratch_folder folder;
  npy_write(folder / "i.npy", std::vector<std::int64_t>{1, 2}, {2});
  npy_write(folder / "f.npy", std::vector<float>{1, 2}, {2});
  const npy_reader integers(folder / "i.npy"), floats(folder / "f.npy");
  std::vector<double> out(2);
  std::vector<std::int64_t> integer_out(2);
  CHECK_THROWS_WITH_AS(integers.read(0, std::span(out)),
                       doctest::Contains("descr: found '<i8', expected '<f8'"), input_error);
  CHECK_THROWS_AS(floats.read(0, std::span(integer_out)), input_error);
  CHECK_THROWS_AS(floats.map<double>(), input_error);
  CHECK_THROWS_WITH_AS(floats.rows(), doctest::Contains("shape: found (2,), expected (any, any)"),
                       input_error);
  CHECK_THROWS_AS(npy_read_vector<double>(folder / "f.npy", {.length = 3}), input_error);
  CHECK(npy_read_vector<double>(folder / "f.npy", {.length = 2}) == std::vector<double>{1, 2});
  integers.read(0, std::span(integer_out));
  CHECK(integer_out == std::vector<std::int64_t>{1, 2});

  const npy_reader odd(folder.put(
      "odd.npy", header_of("{'descr':'|b1','fortran_order':False,'shape':(3,)}") + "\1\0\2"s));
  const auto bools = std::make_unique<bool[]>(3);
  CHECK_THROWS_WITH_AS(odd.read(0, std::span(bools.get(), 3)),
                       doctest::Contains("element 2: found byte 2, expected 0 or 1"), input_error);
  odd.read(0, std::span(bools.get(), 2));
  CHECK((bools[0] && !bools[1]));

  // Data at an odd byte can be read, but not pointed into.
  const npy_reader crooked(folder.put(
      "crooked.npy",
      header_of("{'descr':'<f8','fortran_order':False,'shape':(1,)} ") + std::string(8, '\0')));
  REQUIRE(crooked.size() == 1);
  CHECK_THROWS_WITH_AS(crooked.map<double>(), doctest::Contains("header length: found data at"),
                       input_error);
  crooked.read(0, std::span(out).first(1));
  CHECK(out[0] == 0);
}

TEST_CASE("an empty array of astronomic shape is handled in no time") {
  const scratch_folder folder;
  for (const char* shape : {"(4611686018427387903, 0)", "(0, 4611686018427387903)"})
    for (const char* order : {"True", "False"}) {
      const npy_reader reader(folder.put("x.npy", header_of("{'descr':'|b1','fortran_order':"s +
                                                            order + ",'shape':" + shape + "}")));
      CHECK(reader.size() == 0);
      reader.read_rectangle(0, 0, matrix_view<bool>(nullptr, reader.rows(), reader.cols()));
    }
}

TEST_CASE("the first non-finite value is named") {
  const scratch_folder folder;
  constexpr double infinity = std::numeric_limits<double>::infinity();
  npy_write(folder / "v.npy", std::vector<double>{1, 2, -infinity, std::nan("")}, {4});
  CHECK_THROWS_WITH_AS(npy_read_vector<double>(folder / "v.npy"),
                       doctest::Contains("value 2: found -inf, expected a finite number"),
                       input_error);
  CHECK(npy_read_vector<float>(folder / "v.npy", {.nonfinite = nonfinite_values::keep})[1] == 2);
}

TEST_CASE("a file appears whole or not at all") {
  const scratch_folder folder;
  {
    npy_writer<double> writer(folder / "x.npy", {3});
    writer.append(std::vector<double>{1, 2});
    CHECK_THROWS_AS(writer.finish(), invalid_argument);
    CHECK_THROWS_AS(writer.append(std::vector<double>{3, 4}), invalid_argument);
    CHECK(folder.file_count() == 1);  // the temporary
  }
  CHECK(folder.file_count() == 0);
  npy_write(folder / "x.npy", std::vector<double>{1}, {1});
  {
    npy_writer<double> writer(folder / "x.npy", {2});  // abandoned: the old file stays
    writer.append(std::vector<double>{7, 8});
  }
  CHECK(npy_read_vector<double>(folder / "x.npy") == std::vector<double>{1});
  CHECK(folder.file_count() == 1);
  CHECK_THROWS_AS(npy_write(folder / "y.npy", std::vector<double>{1}, {-1}), invalid_argument);
  CHECK_THROWS_AS(npy_write(folder / "y.npy", std::vector<double>{1}, {index_t{1} << 62}),
                  invalid_argument);
  CHECK_THROWS_WITH_AS(npy_write(folder / "none/x.npy", std::vector<double>{1}, {1}),
                       doctest::Contains("output: found No such file or directory"), input_error);
  CHECK(folder.file_count() == 1);
}

TEST_CASE("the writer takes as many dimensions as the reader") {
  const scratch_folder folder;
  npy_write(folder / "32.npy", std::vector<double>{1}, std::vector<index_t>(32, 1));
  CHECK(npy_reader(folder / "32.npy").shape() == std::vector<index_t>(32, 1));
  CHECK_THROWS_WITH_AS(
      npy_write(folder / "33.npy", std::vector<double>{1}, std::vector<index_t>(33, 1)),
      doctest::Contains("dimensions = 33"), invalid_argument);
  CHECK(folder.file_count() == 1);
}

TEST_CASE("masks and matrices of any strides are written") {
  const scratch_folder folder;
  const index_t universe = 200'001;
  npy_write_mask(folder / "m.npy", index_set({0, 65'535, 65'536, 200'000}, universe));
  const npy_reader mask(folder / "m.npy");
  REQUIRE(mask.shape() == std::vector<index_t>{universe});
  const auto values = std::make_unique<bool[]>(static_cast<std::size_t>(universe));
  mask.read(0, std::span(values.get(), static_cast<std::size_t>(universe)));
  CHECK(std::count(values.get(), values.get() + universe, true) == 4);
  CHECK((values[0] && values[65'535] && values[65'536] && values[200'000]));
  npy_write_mask(folder / "empty.npy", index_set({}, 0));
  CHECK(npy_reader(folder / "empty.npy").size() == 0);

  std::vector<double> x(12);
  std::iota(x.begin(), x.end(), 0.0);
  npy_write(folder / "t.npy", matrix_view<double>(x.data(), 3, 4).transposed());
  const npy_reader transposed(folder / "t.npy");
  CHECK(transposed.shape() == std::vector<index_t>{4, 3});
  std::vector<double> back(12);
  transposed.read(0, std::span(back));
  CHECK(back == std::vector<double>{0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11});
}

TEST_CASE("hostile files are refused with the field's name") {
  const scratch_folder folder;
  const std::string data(24, '\0');
  const auto with = [&](std::string_view descr, std::string_view order, std::string_view shape) {
    return header_of("{'descr': "s.append(descr) + ", 'fortran_order': "s.append(order) +
                     ", 'shape': "s.append(shape) + ", }\n") +
           data;
  };
  const std::string good = with("'<f8'", "False", "(3,)");
  REQUIRE_NOTHROW(npy_reader(folder.put("good.npy", good)));
  const std::string huge_header = "\x93NUMPY\2\0\xff\xff\xff\xff"s + data;
  const std::string long_header = "\x93NUMPY\2\0\0\0\x20\0"s + std::string(1 << 21, ' ');

  const struct {
    std::string_view field;
    std::string bytes;
  } table[] = {
      {"magic", ""},
      {"magic", "\x93NUMPY"},
      {"magic", "\x93NUMPX" + good.substr(6)},
      {"magic", "PK\3\4" + good},
      {"version", "\x93NUMPY\4\0"s + good.substr(8)},
      {"version", "\x93NUMPY\0\0"s + good.substr(8)},
      {"version", "\x93NUMPY\1\1"s + good.substr(8)},
      {"header length", huge_header},
      {"header length", long_header},
      {"header length", "\x93NUMPY\2\0\0\0"s},
      {"header length", "\x93NUMPY\1\0\xff\xff"s + data},
      {"header", header_of("") + data},
      {"header", header_of("[1, 2]") + data},
      {"header", header_of("{'descr': '<f8', 'fortran_order': False, 'shape': (3,)") + data},
      {"header", header_of("{'descr': '<f8', 'fortran_order': False, 'shape': (3,)} x") + data},
      {"header", header_of("{'descr': '<f8', 'fortran_order': False, 'shape': (3,), 'x': 1}")},
      {"descr", header_of("{'descr' '<f8'}") + data},
      {"header", header_of("{'des") + data},
      {"header", header_of("{descr: '<f8'}") + data},
      {"descr", with("'>f8'", "False", "(3,)")},
      {"descr", with("'<f2'", "False", "(3,)")},
      {"descr", with("'<c16'", "False", "(3,)")},
      {"descr", with("'|O'", "False", "(3,)")},
      {"descr", with("[('x', '<f8')]", "False", "(3,)")},
      {"descr", with("'<f8", "False", "(3,)")},
      {"descr", with("8", "False", "(3,)")},
      {"descr", header_of("{'fortran_order': False, 'shape': (3,)}") + data},
      {"descr", header_of("{'descr': '<f8', 'descr': '<f4', 'fortran_order': False}") + data},
      {"fortran_order", with("'<f8'", "'False'", "(3,)")},
      {"fortran_order", with("'<f8'", "0", "(3,)")},
      {"fortran_order", header_of("{'descr': '<f8', 'shape': (3,)}") + data},
      {"shape", header_of("{'descr': '<f8', 'fortran_order': False}") + data},
      {"shape", with("'<f8'", "False", "3")},
      {"shape", with("'<f8'", "False", "(3)")},
      {"shape", with("'<f8'", "False", "[3]")},
      {"shape", with("'<f8'", "False", "(-3,)")},
      {"shape", with("'<f8'", "False", "(3.0,)")},
      {"shape", with("'<f8'", "False", "(3, 'x')")},
      {"shape", with("'<f8'", "False", "(,)")},
      {"shape", with("'<f8'", "False", "(9223372036854775808,)")},
      {"shape", with("'<f8'", "False", "(99999999999999999999999999,)")},
      {"shape", with("'<f8'", "False", "(4294967296, 4294967296)")},
      {"shape", with("'<f8'", "False", "(0, 9223372036854775807, 2)")},
      {"shape", with("'<f8'", "False", "(1152921504606846976,)")},
      {"shape", with("'<f8'", "False", "(" + std::string(66, '1') + ")")},
      {"shape", with("'<f8'", "False",
                     "(1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1)")},
      {"file size", with("'<f8'", "False", "(2,)")},
      {"file size", with("'<f8'", "False", "(4,)")},
      {"file size", with("'<f8'", "False", "(576460752303423487,)")},
      {"file size", good.substr(0, good.size() - 1)},
      {"file size", good + "\0"s},
      {"file size", with("'<f8'", "False", "(0,)")},
  };
  for (const auto& row : table) {
    const std::string path = folder.put("bad.npy", row.bytes);
    CAPTURE(row.field);
    CAPTURE(row.bytes);
    try {
      const npy_reader reader(path);
      FAIL_CHECK("accepted");
    } catch (const input_error& error) {
      CHECK(error.field() == row.field);
      CHECK(error.file() == path);
      CHECK(std::string(error.what()).find_first_of("\n\r") == std::string::npos);
      CHECK(std::string(error.what()).size() < 600);
    }
  }
  // Every shorter prefix is refused, whatever is cut.
  for (std::size_t n = 0; n < good.size(); ++n)
    CHECK_THROWS_AS(npy_reader(folder.put("cut.npy", std::string_view(good).substr(0, n))),
                    input_error);
}

TEST_CASE("places that are no files are refused") {
  const scratch_folder folder;
  CHECK_THROWS_WITH_AS(npy_reader(folder / "none.npy"),
                       doctest::Contains("file: found No such file or directory"), input_error);
  CHECK_THROWS_WITH_AS(npy_reader(folder / ""), doctest::Contains("file: found a directory"),
                       input_error);
  CHECK_THROWS_AS(npy_reader("/dev/zero"), input_error);
  CHECK_THROWS_AS(npy_reader(""), input_error);
}
