// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/io/npy_reader.hpp>
#include <dualsft/io/npy_writer.hpp>

/// NumPy's .npy files, also those larger than memory: read in rectangles or mapped, written in
/// blocks.
///
///     npy_reader gradients("G.npy");                       // checks the header and the file's
///     size gradients.read_rectangle(row, col, tile);            // float32 or float64 into either
///     npy_write("scores.npy", scores, {n});                // appears whole, by rename
///
/// Files are not trusted: whatever does not follow the format to the byte is an input_error that
/// names the file, the field, what was found and what was expected. Format versions 1.0 to 3.0;
/// element types float32, float64, int64 and bool, little-endian; C and Fortran order.
