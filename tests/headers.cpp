// SPDX-License-Identifier: Apache-2.0
// The target that the precompiled headers of the tests belong to needs a source.
