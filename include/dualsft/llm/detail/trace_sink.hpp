// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/traces.hpp>

namespace dualsft::llm::detail {

/// Takes a transformer's traces. The backward pass knows this one type, so it is compiled once and
/// not for each of its users.
template <class S>
class trace_sink {
 public:
  virtual ~trace_sink() = default;
  virtual void operator()(const affine_trace<S>& trace) = 0;
  virtual void operator()(const embedding_trace<S>& trace) = 0;
  virtual void operator()(const scale_trace<S>& trace) = 0;
};

/// Hands them on to any function object.
template <class S, class Sink>
class forwarding_sink final : public trace_sink<S> {
 public:
  explicit forwarding_sink(Sink& sink) : sink_(sink) {}
  void operator()(const affine_trace<S>& trace) override { sink_(trace); }
  void operator()(const embedding_trace<S>& trace) override { sink_(trace); }
  void operator()(const scale_trace<S>& trace) override { sink_(trace); }

 private:
  Sink& sink_;
};

}  // namespace dualsft::llm::detail
