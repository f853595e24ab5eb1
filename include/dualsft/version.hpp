// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The version of the headers. CMakeLists.txt reads these three lines, and the package test checks
/// that the installed package reports the same numbers.
#define DUALSFT_VERSION_MAJOR 0
#define DUALSFT_VERSION_MINOR 1
#define DUALSFT_VERSION_PATCH 0
