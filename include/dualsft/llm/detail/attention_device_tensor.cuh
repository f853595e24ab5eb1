// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/detail/launch.cuh>
#include <dualsft/llm/detail/attention_device_group.cuh>

/// Attention of 16-bit values by tensor cores.
namespace dualsft::llm::detail {

/// A block: `rows` queries of one head (blockIdx.x, from the longest of each sequence to its shortest,
/// heads side by side as they share keys) and `columns` of their values (blockIdx.y). While a tile of
/// keys is worked on, the next one is copied.
/// \tparam Sums  attention_warp or attention_group: who multiplies
template <class Plan, class Sums>
__device__ void attention_block(const attention_arguments<typename Plan::value_type>& a) {
  using namespace dualsft::detail;
  using T = typename Plan::value_type;
  constexpr int threads = Plan::threads, keys = Plan::keys;
  unsigned char* const shared = dynamic_shared();
  __shared__ int not_finite[3];

  const auto heads = static_cast<unsigned>(a.heads);
  const unsigned head = blockIdx.x % heads, number = blockIdx.x / heads;
  const index_t s = last_not_above(
      a.sequences, number, [&](index_t at) { return first_tile(a.starts[at], at, Plan::rows); });
  const index_t start = a.starts[s];
  const int size = static_cast<int>(a.starts[s + 1] - start);
  const int tile = (size + Plan::rows - 1) / Plan::rows - 1 -
                   static_cast<int>(number - first_tile(start, s, Plan::rows));
  if (tile < 0) return;  // a number without a tile
  const int first = tile * Plan::rows;
  const key_range seen = seen_keys(first, Plan::rows, size, a.window);

  const int own_columns = Plan::columns * static_cast<int>(blockIdx.y);
  const int head_size = static_cast<int>(a.head_size), columns = head_size - own_columns;
  const index_t query_at = head * a.head_size, key_at = head / a.group * a.head_size;
  const auto copy_queries = [&](unsigned char* to, const strided_rows<const T>& q) {
    copy_tile<Plan::rows, Plan::head_size, threads>(to, q.row(start + first) + query_at, q.stride,
                                                    size - first, head_size);
  };
  const auto copy_keys = [&](unsigned char* to, const strided_rows<const T>& k,
                             const strided_rows<const T>& v, int key) {
    copy_tile<keys, Plan::head_size, threads>(to, k.row(start + key) + key_at, k.stride, size - key,
                                              head_size);
    copy_tile<keys, Plan::columns, threads>(to + Plan::key_bytes,
                                            v.row(start + key) + key_at + own_columns, v.stride,
                                            size - key, columns);
  };
  const auto copy_stage = [&](int stage, int key) {
    unsigned char* const to = shared + Plan::stages_at + stage * Plan::stage_bytes;
    copy_keys(to, a.k, a.v, key);
    if constexpr (Plan::tangent)
      copy_keys(to + Plan::stage_bytes / 2, a.tangent_k, a.tangent_v, key);
    cp_async_commit();
  };

  const int first_key = seen.begin / keys * keys;
  copy_queries(shared, a.q);
  if constexpr (Plan::tangent) copy_queries(shared + Plan::query_bytes, a.tangent_q);
  copy_stage(0, first_key);
  if (threadIdx.x < 3) not_finite[threadIdx.x] = 0;
  cp_async_wait<0>();
  __syncthreads();

  // The same for all lanes, and known to be: products of four warps must not depend on a thread.
  const int warp = __shfl_sync(0xffffffffU, static_cast<int>(threadIdx.x / 32), 0);
  const int warp_first = first + warp * Plan::warp_rows;
  const int team_first = warp_first - warp_first % Sums::team_rows;
  const key_range team_seen = seen_keys(team_first, Sums::team_rows, size, a.window);
  Sums sums;
  sums.read_queries(shared);
  int stage = 0, flag = 0;
  for (int key = first_key; key < seen.end; key += keys) {
    unsigned char* const k = shared + Plan::stages_at + stage * Plan::stage_bytes;
    unsigned char* const v = k + Plan::key_bytes;
    unsigned char* const tangent_v = v + Plan::stage_bytes / 2;
    cp_async_wait<0>();
    // Whether all see all; else a weight of zero could meet an infinity that its row does not see.
    const bool partly = has_unseen(first, Plan::rows, key, keys, size, a.window);
    if (partly) {
      bool found = own_not_finite<T, keys, Plan::columns, threads>(v);
      if constexpr (Plan::tangent)
        found = found || own_not_finite<T, keys, Plan::columns, threads>(tangent_v);
      if (found) atomicOr(&not_finite[flag], 1);
    }
    Sums::publish();
    __syncthreads();  // everybody's copies are here, and nobody works on the last tile any more
    if (key + keys < seen.end) copy_stage(1 - stage, key + keys);
    const bool mend = partly && not_finite[flag] != 0;
    const int last_flag = flag == 0 ? 2 : flag - 1;
    if (threadIdx.x == 0)
      not_finite[last_flag] = 0;  // read before this barrier, set after the next
    flag = flag == 2 ? 0 : flag + 1;

    const bool works = team_first < size && key < team_seen.end && key + keys > team_seen.begin;
    sums.scores(works, shared, k);
    if (works) {
      if (has_unseen(warp_first, Plan::warp_rows, key, keys, size, a.window))
        sums.hide({warp_first, key, size, a.window});
      sums.weigh(a.scale);
    }
    if (mend) {
      if (works) sums.add_not_finite({warp_first, key, size, a.window}, v);
      __syncthreads();
      clear_own_not_finite<T, keys, Plan::columns, threads>(v);
      if constexpr (Plan::tangent) clear_own_not_finite<T, keys, Plan::columns, threads>(tangent_v);
      Sums::publish();
      __syncthreads();
    }
    if (works) sums.values(v);
    stage = 1 - stage;
  }
  if (warp_first >= size) return;
  const auto from_here = [&](const strided_rows<T>& out) {
    return strided_rows<T>{out.row(start + warp_first) + query_at + own_columns, out.stride};
  };
  sums.write(from_here(a.o), Plan::tangent ? from_here(a.tangent_o) : strided_rows<T>{},
             size - warp_first, columns);
}

template <class Plan>
__global__ void __launch_bounds__(Plan::threads, Plan::blocks)
    tensor_attention(const attention_arguments<typename Plan::value_type> a) {
  attention_block<Plan, attention_warp<Plan>>(a);
}

template <class Plan>
__global__ void __launch_bounds__(Plan::threads, Plan::blocks)
    group_attention(const attention_arguments<typename Plan::value_type> a) {
#if defined(DUALSFT_HAS_WGMMA)
  attention_block<Plan, attention_group<Plan>>(a);
#endif
}

/// \param rows  of all sequences together
template <class Plan>
void launch_attention_kernel(const char* function, const exec::cuda& policy,
                             const attention_arguments<typename Plan::value_type>& a, index_t rows,
                             void (*kernel)(attention_arguments<typename Plan::value_type>)) {
  const index_t blocks = a.heads * first_tile(rows, a.sequences, Plan::rows);
  expects(blocks <= 0x7fffffff, function, "there can be 2^31 - 1 tiles of queries", "tiles",
          blocks);
  dualsft::detail::launch(function, policy,
                          {dim3(static_cast<unsigned>(blocks), Plan::head_size / Plan::columns),
                           dim3(Plan::threads), Plan::shared_bytes},
                          kernel, a);
}

// What fits 255 registers: without tangents a thread keeps the sums of 32 rows of 128 columns, with
// them those of 16. Heads of 256 with tangents are therefore cut in two, and their scores formed twice.
template <class T, bool Tangent>
void launch_tensor_attention(const char* function, const exec::cuda& policy,
                             const attention_arguments<T>& a, index_t rows) {
  const auto with = [&]<class Plan>(Plan) {
    launch_attention_kernel<Plan>(function, policy, a, rows, tensor_attention<Plan>);
  };
  // head size, columns, row tiles of a warp, keys, warps, blocks
  if constexpr (Tangent) {
    if (a.head_size <= 64)
      with(attention_plan<T, 64, 64, 2, 32, 4, 2, true>{});
    else if (a.head_size <= 128)
      with(attention_plan<T, 128, 128, 1, 32, 8, 1, true>{});
    else
      with(attention_plan<T, 256, 128, 1, 32, 4, 1, true>{});
  } else {
    if (a.head_size <= 64)
      with(attention_plan<T, 64, 64, 2, 64, 4, 2, false>{});
    else if (a.head_size <= 128)
      with(attention_plan<T, 128, 128, 2, 48, 4, 2, false>{});
    else
      with(attention_plan<T, 256, 256, 1, 32, 8, 1, false>{});
  }
}

/// Attention with tangents by products of four warps. At 128 columns the sums, a tile's scores and their
/// tangents, and q are 224 registers of 255; some 60 bytes of what is needed once a tile wait in memory.
/// \pre  a.head_size <= 128, has_wgmma()
template <class T>
void launch_group_attention(const char* function, const exec::cuda& policy,
                            const attention_arguments<T>& a, index_t rows) {
  const auto with = [&]<class Plan>(Plan) {
    launch_attention_kernel<Plan>(function, policy, a, rows, group_attention<Plan>);
  };
  if (a.head_size <= 64)
    with(attention_plan<T, 64, 64, 1, 64, 8, 1, true>{});
  else
    with(attention_plan<T, 128, 128, 1, 64, 8, 1, true>{});
}

}  // namespace dualsft::llm::detail
