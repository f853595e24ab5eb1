#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Proves: bench/gpu_table.py shows each measured loop beside each of its baselines, won or lost, names what is
missing and survives files that are not what they should be. Against: files made up here.

    python3 tests/structural/gpu_table_test.py SOURCE_FOLDER
"""

import contextlib
import io
import json
import pathlib
import runpy
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else ".")
DEVICE = "NVIDIA H100 80GB HBM3"


def bench(rows, **context):
    """What Google Benchmark writes."""
    return {"context": {"device": DEVICE, "copy_GB_per_s": "2900", "nvcc": "13.0.88"} | context,
            "benchmarks": [{"name": name + "/iterations:20/manual_time"} | row for name, row in rows]}


def pytorch(rows, device=DEVICE):
    return {"context": {"device": device, "torch": "2.11.0"}, "baselines": rows}


def lost():
    return {"error_occurred": True, "error_message": "scores differ | from <b>the host's\nsecond line"}


class Table(unittest.TestCase):
    def table(self, files, into=False):
        """What is printed, or what lands in a page. In place of a file None is a folder."""
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                if content is None:
                    (pathlib.Path(folder) / f"gpu_{name}.json").mkdir()
                    continue
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                (pathlib.Path(folder) / f"gpu_{name}.json").write_bytes(data)
            page = pathlib.Path(folder) / "page.md"
            page.write_text("above\n<!-- device table -->\nold\n<!-- end -->\nbelow\n")
            printed = io.StringIO()
            sys.argv = ["gpu_table.py", folder] + (["--into", str(page)] if into else [])
            with contextlib.redirect_stdout(printed):
                runpy.run_path(str(SOURCE / "bench" / "gpu_table.py"))  # an exception fails the test
            return page.read_text() if into else printed.getvalue()

    def row(self, text, *parts):
        """The one row with these parts, as cells; every row has as many cells as its table's head."""
        width = 0
        found = []
        for line in text.splitlines():
            cells = [c.strip() for c in line.replace("\\|", "/").strip("|").split("|")]
            if line.startswith("| ---"):
                width = len(cells)
            elif not line.startswith("|"):
                width = 0
            elif width:
                self.assertEqual(len(cells), width, line)
                if all(any(part == c for c in cells) for part in parts):
                    found.append(cells)
        self.assertEqual(len(found), 1, f"rows with {parts}: {found}")
        return found[0]

    def test_nothing_measured(self):
        text = self.table({})
        for what in ("`cub::DeviceTopK`, which tells no boundary", "PyTorch and Liger-Kernel"):
            self.assertEqual(self.row(text, what)[2:], ["", "", "not measured yet: no device was at hand"])

    def test_wins_and_losses_of_one_run(self):
        text = self.table({"topk": bench([
            ("topk/normal/value/beside_sorts/n:268435456",
             {"ms": 1.5, "cub_sort_ms": 9.0, "ratio_to_cub_sort": 6.0,
              "cub_topk_ms": 1.2, "ratio_to_cub_topk": 0.8}),
            ("topk/normal/value/beside_sorts/n:2147483648",
             {"ms": 10.0, "cub_sort_ms": 80.0, "ratio_to_cub_sort": 8.0,
              "cub_topk_ms": 12.0, "ratio_to_cub_topk": 1.2, "fourth_ms": 5.0, "ratio_to_fourth": 0.5}),
            ("topk/normal/value/beside_sorts/n:3212749824", lost())])}, into=True)
        self.assertTrue(text.startswith("above\n<!-- device table -->\n\n| loop |"))
        self.assertTrue(text.endswith("<!-- end -->\nbelow\n"))
        self.assertNotIn("old", text)
        sort = self.row(text, "`cub::DeviceRadixSort` of the keys")
        self.assertEqual(sort[2:4], ["1.5 to 10 ms", "9 to 80 ms"])
        self.assertIn("6 to 8; ahead in 2 of 2; topk/normal/value/beside_sorts/n:3212749824: scores differ "
                      "/ from &lt;b>the host's", sort[4])
        top = self.row(text, "`cub::DeviceTopK`, which tells no boundary")
        self.assertIn("0.8 to 1.2; ahead in 1 of 2, **behind** in "
                      "topk/normal/value/beside_sorts/n:268435456 (0.8)", top[4])
        self.assertEqual(self.row(text, "fourth")[2:4], ["10 ms", "5 ms"])
        self.assertTrue(self.row(text, "fourth")[4].startswith("0.5, **behind**"))
        self.assertIn("n:3212749824: scores differ", self.row(text, "`thrust::sort` of the keys")[4])
        self.assertIn(f"Measured on: {DEVICE}, nvcc 13.0.88; copies of 2900 to 2900 GB/s.", text)

    def test_a_counter_that_is_missing(self):
        text = self.table({"attention": bench([("attention/tangent/bf16/a", {"ms": 1.0})])})
        self.assertEqual(self.row(text, "our attention without tangents, a part of the work")[4],
                         "not measured: the file has no such counter")

    def test_other_programs(self):
        ours = bench([("cwsd/a", {"ms": 2.0}), ("cwsd/b", {"ms": 3.0}), ("cwsd/c", lost()),
                      ("cwsd/d", {"ms": float("nan")})])
        text = self.table({"cwsd": ours, "pytorch": pytorch([
            {"name": "eager", "beside": "cwsd/a", "ms": 5.0, "kv_heads": "8, enable_gqa"},
            {"name": "compiled", "beside": "cwsd/a", "ms": 1.0},
            {"name": "compiled", "beside": "cwsd/b", "ms": 6.0, "result": "right"},
            {"name": "both worse", "beside": "cwsd/a", "ms": 1.0},
            {"name": "both worse", "beside": "cwsd/b", "ms": 1.0},
            {"name": "less, a part of the work", "beside": "cwsd/a", "ms": 1.0},
            {"name": "half known", "beside": "cwsd/a", "ms": 3.0},
            {"name": "half known", "beside": "cwsd/b", "error": "RuntimeError: x"},
            {"name": "topk", "beside": "cwsd/a", "ms": 4.0, "result": "WRONG: not the K largest"},
            {"name": "liger", "beside": "cwsd/a", "error": "left out: no liger_kernel here\nmore"},
            {"name": "of c", "beside": "cwsd/c", "ms": 1.0},
            {"name": "of d", "beside": "cwsd/d", "ms": 1.0},
            {"name": "of none", "beside": "cwsd/none", "ms": 1.0},
            {"name": "late", "beside": "cwsd/b", "error": ""},
            {"name": "unrelated", "ms": 1.0}])})
        text = text[:text.index("###")]  # the loops
        self.assertEqual(self.row(text, "eager"),
                         ["cwsd/a", "eager", "2 ms", "5 ms", "2.5; kv_heads: 8, enable_gqa"])
        self.assertEqual(self.row(text, "compiled"),
                         ["cwsd/a and 1 more", "compiled", "2 to 3 ms", "1 to 6 ms",
                          "0.5 to 2; ahead in 1 of 2, **behind** in cwsd/a (0.5)"])
        self.assertEqual(self.row(text, "both worse")[4], "0.333 to 0.5; ahead in 0 of 2, **behind**")
        self.assertEqual(self.row(text, "less, a part of the work")[4], "0.5")
        self.assertEqual(self.row(text, "half known")[4], "1.5; cwsd/b: RuntimeError: x")
        self.assertEqual(self.row(text, "topk")[4], "2; result: WRONG: not the K largest")
        self.assertEqual(self.row(text, "liger")[2:],
                         ["", "", "left out: no liger_kernel here"])
        self.assertIn("scores differ", self.row(text, "of c")[4])
        self.assertEqual(self.row(text, "of d")[4], "no time")
        self.assertEqual(self.row(text, "of none")[4], "ours was not measured")
        self.assertEqual(self.row(text, "late")[2:], ["", "", "it failed"])
        self.assertNotIn("unrelated", text)
        self.assertIn(f"Measured on: {DEVICE}, PyTorch 2.11.0.", text)

    def test_what_was_no_device_or_another(self):
        baseline = [{"name": "eager", "beside": "cwsd/a", "ms": 5.0}]
        rows = [("cwsd/a", {"ms": 2.0})]
        played = bench(rows, nvcc="none: a processor plays the device")
        self.assertEqual(self.row(self.table({"cwsd": played, "pytorch": pytorch(baseline)}, True), "eager")[4],
                         "no device: a processor played it")
        other = pytorch(baseline, "NVIDIA A100")
        self.assertEqual(self.row(self.table({"cwsd": bench(rows), "pytorch": other}, True), "eager")[4],
                         "ours was measured on another device")
        none = pytorch(baseline, "the processor: no time means anything")
        self.assertEqual(self.row(self.table({"cwsd": bench(rows), "pytorch": none}, True),
                                  "PyTorch and Liger-Kernel")[4], "no device: a processor played it")
        old = pytorch([{"name": "eager", "ms": 5.0}])
        self.assertEqual(self.row(self.table({"cwsd": bench(rows), "pytorch": old}, True),
                                  "PyTorch and Liger-Kernel")[4], "not measured: the file names no loop")

    def test_a_bound(self):
        name = "cwsd/bf16_per_row/rows:8192/V:128256"
        for share, verdict in ((0.9, "reached: 0.9 (1 of 1)"), (0.5, "**missed**: 0.5 (0 of 1)")):
            text = self.table({"cwsd": bench([(name, {"ms": 1.0, "ratio_to_copy": share,
                                                      "at_least:ratio_to_copy": 0.8})])}, into=True)
            self.assertEqual(self.row(text, ">= 0.80 of the copy")[2], verdict)

    def test_garbage_is_named(self):
        good = json.dumps(bench([("cwsd/a", {"ms": 2.0})]), indent=2).encode()
        garbage = [
            b"", b"\xff\xfe", b"[", b"null", b"3", b"[]", b"{}", b"[" * 100000, b'{"benchmarks": 3}',
            b'{"context": 1, "benchmarks": []}', b'{"context": {}, "benchmarks": []}',
            b'{"context": {}, "baselines": [1]}', b'{"baselines": {}}',
            json.dumps(bench([("cwsd/a", {"ms": "2"})])).encode(),
            json.dumps(bench([("cwsd/a", {"ms": True})])).encode(),
            json.dumps(bench([("cwsd/a", {"ms": 10 ** 400})])).encode(),
            json.dumps(bench([("cwsd/a", {"ms": None, "x_ms": 1, "ratio_to_x": 1})])).encode(),
            json.dumps(bench([("cwsd/a", {"error_message": 3, "error_occurred": True})])).encode(),
            json.dumps(bench([], copy_GB_per_s="fast")).encode(),
            json.dumps(bench([], device=3)).encode(),
            json.dumps({"context": bench([])["context"], "benchmarks": [3]}).encode(),
        ]
        for content in garbage:
            for name, where in (("cwsd", ">= 0.80 of the copy"), ("pytorch", "PyTorch and Liger-Kernel")):
                with self.subTest(name=name, content=content[:60]):
                    text = self.table({name: content})
                    self.assertIn(f"gpu_{name}.json is not whole", " ".join(self.row(text, where)))
        for end in range(0, len(good), 29):  # a program that was stopped
            text = self.table({"cwsd": good[:end]})
            self.assertRegex(text, "is not whole|[Ss]topped before its end|no such benchmark")
        for row in ({"name": 3}, {"name": "x", "ms": "1"}, {"name": "x", "beside": 3},
                    {"name": "x", "beside": "cwsd/a", "error": []}):
            self.assertIn("gpu_pytorch.json is not whole", self.table({"pytorch": pytorch([row])}))

    def test_what_cannot_be_read_is_named(self):
        for name in ("cwsd", "pytorch"):
            self.assertIn(f"gpu_{name}.json cannot be read: ", self.table({name: None}))
        half = "half a character: \ud800"
        text = self.table({"cwsd": bench([(half, {"ms": 1.0})], device=half)})
        text.encode()  # what a file takes
        self.assertIn("half a character: ?", text)

    def test_names_cannot_break_a_table(self):
        bad = "a | b\n| --- |\n<script>`x` & " + "y" * 1000
        text = self.table({"cwsd": bench([(bad, {"ms": 1.0, f"{bad}_ms": 1.0, f"ratio_to_{bad}": 2.0}),
                                          ("cwsd/a", {"error_occurred": True})]),
                           "topk": bench([("topk/x/beside_sorts/n", {"ms": 1.0, f"{bad}_ms": 1.0,
                                                                     f"ratio_to_{bad}": 2.0})]),
                           "pytorch": pytorch([{"name": bad, "beside": bad, bad: bad, "ms": 1.0},
                                               {"name": bad, "beside": "cwsd/a", "error": bad}]),
                           "ladder_x": bench([(bad, {"ms": 1.0})], device=bad)})
        self.assertNotIn("<script>", text)
        self.assertNotIn("y" * 400, text)
        self.row(text, "exact Top-K 5 % of stored f32 scores", "1 ms")


unittest.main()
