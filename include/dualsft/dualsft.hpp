// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Everything that runs on the host and needs Eigen alone. Left out, to be included by name:
/// archetypes.hpp (for tests of algorithms), adapt/xtensor.hpp (needs xtensor), io/safetensors.hpp
/// (needs nlohmann_json) and the .cuh headers (need the CUDA toolkit).

#include <dualsft/concepts.hpp>
#include <dualsft/config.hpp>
#include <dualsft/conservation.hpp>
#include <dualsft/coordination.hpp>
#include <dualsft/curvature.hpp>
#include <dualsft/cwsd.hpp>
#include <dualsft/data_scores.hpp>
#include <dualsft/diagnostics.hpp>
#include <dualsft/dual_scores.hpp>
#include <dualsft/error.hpp>
#include <dualsft/execution.hpp>
#include <dualsft/float16.hpp>
#include <dualsft/games.hpp>
#include <dualsft/gradients.hpp>
#include <dualsft/hessian.hpp>
#include <dualsft/index_set.hpp>
#include <dualsft/interaction.hpp>
#include <dualsft/io/atomic_file.hpp>
#include <dualsft/io/mapped_file.hpp>
#include <dualsft/io/npy.hpp>
#include <dualsft/io/npy_reader.hpp>
#include <dualsft/io/npy_writer.hpp>
#include <dualsft/layout.hpp>
#include <dualsft/model_shapley.hpp>
#include <dualsft/models/byte_corpus.hpp>
#include <dualsft/models/byte_lm.hpp>
#include <dualsft/models/labelled_data.hpp>
#include <dualsft/models/mlp_classifier.hpp>
#include <dualsft/models/quadratic.hpp>
#include <dualsft/models/softmax_regression.hpp>
#include <dualsft/objective.hpp>
#include <dualsft/optim/adamw.hpp>
#include <dualsft/optim/clip.hpp>
#include <dualsft/optim/dense_optimizer.hpp>
#include <dualsft/optim/masked_adamw.hpp>
#include <dualsft/optim/masked_optimizer.hpp>
#include <dualsft/optim/masked_sgd.hpp>
#include <dualsft/optim/paged_index_set.hpp>
#include <dualsft/optim/schedule.hpp>
#include <dualsft/optim/sgd.hpp>
#include <dualsft/order.hpp>
#include <dualsft/parameter_scores.hpp>
#include <dualsft/parameters.hpp>
#include <dualsft/preservation.hpp>
#include <dualsft/projection.hpp>
#include <dualsft/random.hpp>
#include <dualsft/score_source.hpp>
#include <dualsft/shapley.hpp>
#include <dualsft/splits.hpp>
#include <dualsft/stability.hpp>
#include <dualsft/topk.hpp>
#include <dualsft/topk_types.hpp>
#include <dualsft/traces.hpp>
#include <dualsft/training.hpp>
#include <dualsft/utility.hpp>
#include <dualsft/version.hpp>
#include <dualsft/views.hpp>
