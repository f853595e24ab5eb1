// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/random.hpp>
#include <memory>
#include <utility>
#include <vector>

/// The data store of the classifiers in models/.
namespace dualsft {

/// N records of f features with one label each.
template <class S>
struct labelled_data {
  index_t features = 0;         ///< f
  index_t classes = 0;          ///< labels lie in [0, classes)
  std::vector<S> values;        ///< [N, f] row-major
  std::vector<index_t> labels;  ///< [N]

  index_t size() const { return static_cast<index_t>(labels.size()); }

  /// \throws invalid_argument  if sizes disagree or a label is out of range
  void validate() const {
    expects(features >= 0 && classes >= 1, "labelled_data",
            "features must be >= 0 and classes >= 1", "features", features, "classes", classes);
    expects(static_cast<index_t>(values.size()) == size() * features, "labelled_data",
            "values must hold one row of features per label", "values", values.size(), "labels",
            labels.size(), "features", features);
    for (std::size_t i = 0; i < labels.size(); ++i)
      expects(0 <= labels[i] && labels[i] < classes, "labelled_data",
              "a label must lie in [0, classes)", "record", i, "label", labels[i], "classes",
              classes);
  }
};

struct labelled_data_options {
  index_t examples = 64;
  index_t features = 8;
  index_t classes = 3;
  double separation = 2.0;  ///< distance scale of the class centres; the noise around them is 1
  std::uint64_t seed = 0;
};

/// Gaussian clusters, one per class, labels drawn uniformly:
/// x_i = separation * mu_{y_i} / sqrt(f) + noise,  mu and noise standard normal.
template <class S>
std::shared_ptr<const labelled_data<S>> random_labelled_data(labelled_data_options options = {}) {
  expects(options.examples >= 0, "random_labelled_data", "examples must not be negative",
          "examples", options.examples);
  random_source rng(options.seed);
  auto data = std::make_shared<labelled_data<S>>();
  data->features = options.features;
  data->classes = options.classes;
  data->validate();
  std::vector<double> centres(static_cast<std::size_t>(options.classes * options.features));
  const double scale =
      options.separation / std::sqrt(std::max(1.0, static_cast<double>(options.features)));
  for (double& c : centres) c = scale * rng.normal();
  data->values.reserve(static_cast<std::size_t>(options.examples * options.features));
  for (index_t i = 0; i < options.examples; ++i) {
    const index_t label = rng.below(options.classes);
    data->labels.push_back(label);
    for (index_t f = 0; f < options.features; ++f)
      data->values.push_back(static_cast<S>(
          centres[static_cast<std::size_t>(label * options.features + f)] + rng.normal()));
  }
  return data;
}

namespace detail {

/// The Input of network_model (see there) for labelled data: one row per record.
template <class S>
class labelled_input {
 public:
  explicit labelled_input(std::shared_ptr<const labelled_data<S>> data) : data_(std::move(data)) {
    expects(data_ != nullptr, "labelled_input", "the model needs data");
    data_->validate();
  }
  const std::shared_ptr<const labelled_data<S>>& data() const { return data_; }

  index_t examples() const { return data_->size(); }
  index_t rows(index_t) const { return 1; }
  index_t target(index_t example, index_t) const {
    return data_->labels[static_cast<std::size_t>(example)];
  }
  index_t table() const { return -1; }
  index_t ids_per_row() const { return 0; }
  void ids(index_t, index_t, index_t*) const {}
  void features(index_t example, index_t, S* out) const {
    std::copy_n(data_->values.data() + example * data_->features, data_->features, out);
  }

 private:
  std::shared_ptr<const labelled_data<S>> data_;
};

}  // namespace detail
}  // namespace dualsft
