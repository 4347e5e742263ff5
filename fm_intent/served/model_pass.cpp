// What `FMIntent.answer` says, computed for new positions alone, on a CPU with AVX2, FMA and F16C.
//
// It is the network of network.py in another order. A layer's keys and values are two matrices times
// what it looks back at: the norm of its inputs, rounded to half precision. So that norm is all that
// is kept of a position, one vector a layer instead of 2; the keys' matrix is multiplied into the
// queries and the values' into what follows attention, once, by compiled.py. What the first layer
// looks back at follows from a position's own inputs, so it isn't kept but made again.
//
// Numbers of one position come of the same operations in the same order however many are computed
// beside it, so an answer is the same to the bit whatever was kept.
//
// Names: D width, H heads, W positions of a slot. Matrices of weights lie in panels of 16 columns,
// [columns / 16][rows][16]; rows of results are as wide as their panels.

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>

namespace {

constexpr int64_t EDGES = 56;          // of the buckets of time
constexpr int64_t NEAR = 32;           // distances in order from here on share one bias
constexpr int64_t DAY_MS = 86'400'000;
constexpr int64_t UNKNOWN_DAY = -(1LL << 31);
constexpr int64_t FIRST_ROW = 2;       // title row of the first title
constexpr int64_t BLOCK = 128;         // positions that are computed together, or those of one row
constexpr int64_t SCORED = 12;         // rows whose scores are in the processor's cache together

enum Role : int64_t { SHORT, INTENT, ITEM };
enum Told : int64_t { NOTHING, ENTRY, AGE };

}  // namespace

// ---- What compiled.py fills in; its structures have the same fields in the same order.

struct Layer {
  const float *query, *query_bias;        // D -> H x D queries, then D gates
  const float *out, *out_bias;            // H x D -> D
  const float *feed_in, *feed_in_bias;    // D -> up, hidden, gate
  const float *feed_out, *feed_out_bias;  // hidden -> D
};

struct Stage {
  int64_t role, layers;
  const float *title, *action, *age, *device, *gap;  // [rows][D], what each adds to the inlet
  const float *numbers;                              // [3][D]: watched share, is known, log gap
  const float *before;                               // what stages before say -> D, or null
  const float *norm, *norm_bias, *outlet, *outlet_bias;
};

struct Intent {
  int64_t classes, predicted, told;
  int64_t logit, share;  // its first column among all logits, and among the titles' shares
  const float *project, *project_bias;
  float title_share;
};

struct Model {
  int64_t width, heads, hidden, stages, intents, logits, shares, top;
  int64_t titles, vocabulary, actions, devices, ages, repeats, hierarchical, within_ms;
  const Stage* stage;
  const Layer* layer;  // of all stages
  const Intent* intent;
  const float *order, *time;  // [stages x H + 1][NEAR], [stages x H + 1][EDGES + 1]; recall's last
  const float *logit, *logit_bias, *attend;        // attend: D, then its bias
  const float *recall, *recall_bias, *recall_key;  // or null; recall_key: D, then a constant
  const float *candidates, *title_shares;          // D -> titles; titles -> shares
  const int64_t *release_day, *time_edges, *age_edges, *hash;
};

struct Batch {
  int64_t rows, length;
  const int64_t *title, *action, *start;  // [rows][length]
  const float* share;
  const int64_t *device, *size;
  uint8_t* slots;
  int64_t slot_bytes, window;
  int64_t* valid;       // per slot: how many of its positions are good
  const int64_t* slot;  // of each row
  float* const* probs;  // per intent
  float *attention, *embedding, *score, *log_norm, *user;
  int64_t *hash, *reused;
};

namespace {

// A position's inputs, and what follows from them alone.
struct Seen {
  int64_t start;
  int32_t title;
  float share, log_gap;
  uint8_t action, device, gap, age;
};
static_assert(sizeof(Seen) == 24, "compiled.py counts on it");

using v8 = __m256;
using half = uint16_t;

inline v8 ld(const float* p) { return _mm256_loadu_ps(p); }
inline v8 ld(const half* p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }
inline void st(float* p, v8 x) { _mm256_storeu_ps(p, x); }
inline void st(half* p, v8 x) {
  _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
inline v8 set(float x) { return _mm256_set1_ps(x); }
inline v8 add(v8 x, v8 y) { return _mm256_add_ps(x, y); }
inline v8 sub(v8 x, v8 y) { return _mm256_sub_ps(x, y); }
inline v8 mul(v8 x, v8 y) { return _mm256_mul_ps(x, y); }
inline v8 fma(v8 x, v8 y, v8 z) { return _mm256_fmadd_ps(x, y, z); }

inline float sum(v8 x) {
  __m128 a = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  a = _mm_add_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_add_ss(a, _mm_shuffle_ps(a, a, 1)));
}
inline float largest(v8 x) {
  __m128 a = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  a = _mm_max_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_max_ss(a, _mm_shuffle_ps(a, a, 1)));
}
inline int64_t up8(int64_t n) { return (n + 7) & ~7; }
inline int64_t up16(int64_t n) { return (n + 15) & ~15; }

// e^x by Cephes' polynomial; 0 below -87. What is no number stays none: max and min give their
// second argument then.
inline v8 exp8(v8 x) {
  const v8 low = _mm256_cmp_ps(x, set(-87.3f), _CMP_LT_OQ);
  x = _mm256_min_ps(set(88.3f), _mm256_max_ps(set(-87.3f), x));
  const v8 n = _mm256_round_ps(mul(x, set(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  v8 r = _mm256_fnmadd_ps(n, set(0.693359375f), x);
  r = _mm256_fnmadd_ps(n, set(-2.12194440e-4f), r);
  v8 p = set(1.9875691500e-4f);
  for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
    p = fma(p, r, set(c));
  p = fma(p, mul(r, r), add(r, set(1)));
  const __m256i e = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_andnot_ps(low, mul(p, _mm256_castsi256_ps(e)));
}
inline v8 sigmoid8(v8 x) { return _mm256_div_ps(set(1), add(set(1), exp8(sub(set(0), x)))); }

// ln(x) of x from 1 to 2, by Cephes' polynomial.
inline v8 log8(v8 x) {
  const v8 big = _mm256_cmp_ps(x, set(1.41421356f), _CMP_GT_OQ);
  const v8 r = sub(_mm256_blendv_ps(x, mul(x, set(.5f)), big), set(1)), z = mul(r, r);
  v8 p = set(7.0376836292e-2f);
  for (float c : {-1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f,
                  -1.6668057665e-1f, 2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f})
    p = fma(p, r, set(c));
  v8 y = mul(mul(p, r), z);
  y = add(_mm256_fnmadd_ps(set(.5f), z, y), r);
  return add(y, _mm256_and_ps(big, set(0.69314718f)));
}
inline v8 softplus8(v8 x) {
  const v8 size = _mm256_andnot_ps(set(-0.f), x);
  return add(_mm256_max_ps(set(0), x), log8(add(set(1), exp8(sub(set(0), size)))));
}

// ---- Memory that is used again in the next call.

struct Scratch {
  struct Chunk { char* at; size_t bytes; };
  Chunk chunk[32] = {};
  int now = 0;
  size_t used = 0;

  void restart() { now = 0, used = 0; }
  template <class T> T* take(size_t count) {
    const size_t bytes = (count * sizeof(T) + 63 + 64) & ~size_t(63);  // and what a vector reads beyond
    while (chunk[now].at == nullptr || used + bytes > chunk[now].bytes) {
      if (chunk[now].at != nullptr) { ++now, used = 0; continue; }
      const size_t size = std::max(bytes, size_t(1) << (20 + now));
      chunk[now] = {(char*)std::aligned_alloc(64, size), size};
      if (chunk[now].at == nullptr) std::abort();
    }
    used += bytes;
    return (T*)(chunk[now].at + used - bytes);
  }
};
thread_local Scratch scratch;

// ---- Matrix products: y[M][ldy] = x[M][ldx] w + bias, or y + x w

template <int MR, int NP, bool ON>
inline void tile(const float* x, int64_t ldx, const float* w, int64_t K, const float* bias, float* y, int64_t ldy) {
  v8 acc[MR][2 * NP];
  for (int i = 0; i < MR; i++)
    for (int j = 0; j < 2 * NP; j++) acc[i][j] = ON ? ld(y + i * ldy + 8 * j) : bias ? ld(bias + 8 * j) : set(0);
  for (int64_t k = 0; k < K; k++) {
    v8 row[2 * NP];
    for (int p = 0; p < NP; p++) row[2 * p] = ld(w + (p * K + k) * 16), row[2 * p + 1] = ld(w + (p * K + k) * 16 + 8);
    for (int i = 0; i < MR; i++) {
      const v8 one = _mm256_broadcast_ss(x + i * ldx + k);
      for (int j = 0; j < 2 * NP; j++) acc[i][j] = fma(one, row[j], acc[i][j]);
    }
  }
  for (int i = 0; i < MR; i++)
    for (int j = 0; j < 2 * NP; j++) st(y + i * ldy + 8 * j, acc[i][j]);
}

template <bool ON = false>
void product(int64_t M, int64_t N, int64_t K, const float* x, int64_t ldx, const float* w, const float* bias, float* y,
             int64_t ldy) {
  int64_t n = 0;
  if (M == 1)  // one row fills the processor with several panels
    for (; n + 64 <= N; n += 64) tile<1, 4, ON>(x, ldx, w + n * K, K, bias ? bias + n : bias, y + n, ldy);
  for (; n < N; n += 16) {
    const float *panel = w + n * K, *from = bias ? bias + n : bias, *row = x;
    float* to = y + n;
    int64_t left = M;
    for (; left >= 6; left -= 6, row += 6 * ldx, to += 6 * ldy) tile<6, 1, ON>(row, ldx, panel, K, from, to, ldy);
    switch (left) {
      case 5: tile<5, 1, ON>(row, ldx, panel, K, from, to, ldy); break;
      case 4: tile<4, 1, ON>(row, ldx, panel, K, from, to, ldy); break;
      case 3: tile<3, 1, ON>(row, ldx, panel, K, from, to, ldy); break;
      case 2: tile<2, 1, ON>(row, ldx, panel, K, from, to, ldy); break;
      case 1: tile<1, 1, ON>(row, ldx, panel, K, from, to, ldy); break;
    }
  }
}

// The sums of eight vectors' lanes.
inline v8 sums(const v8* a) {
  const v8 low = _mm256_hadd_ps(_mm256_hadd_ps(a[0], a[1]), _mm256_hadd_ps(a[2], a[3]));
  const v8 high = _mm256_hadd_ps(_mm256_hadd_ps(a[4], a[5]), _mm256_hadd_ps(a[6], a[7]));
  return add(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31));
}

// Norms of rows x [count][D], eight at once, which don't wait for each other; the last stands in for
// what is missing. Without weight and bias where those are multiplied into what follows.
void norms(int64_t count, const float* x, int64_t D, const float* weight, const float* bias, float* y, int64_t ldy) {
  for (int64_t i = 0; i < count; i += 8) {
    const float* row[8];
    v8 a[8], q[8];
    for (int k = 0; k < 8; k++) row[k] = x + std::min(i + k, count - 1) * D, a[k] = q[k] = set(0);
    for (int64_t j = 0; j < D; j += 8)
      for (int k = 0; k < 8; k++) a[k] = add(a[k], ld(row[k] + j));
    alignas(32) float mean[8], scale[8];
    st(mean, _mm256_div_ps(sums(a), set(D)));
    for (int64_t j = 0; j < D; j += 8)
      for (int k = 0; k < 8; k++) {
        const v8 d = sub(ld(row[k] + j), set(mean[k]));
        q[k] = fma(d, d, q[k]);
      }
    st(scale, _mm256_div_ps(set(1), _mm256_sqrt_ps(add(_mm256_div_ps(sums(q), set(D)), set(1e-5f)))));
    for (int64_t k = 0; k < std::min<int64_t>(8, count - i); k++)
      for (int64_t j = 0; j < D; j += 8) {
        const v8 v = mul(sub(ld(row[k] + j), set(mean[k])), set(scale[k]));
        st(y + (i + k) * ldy + j, weight ? fma(v, ld(weight + j), ld(bias + j)) : v);
      }
  }
}

inline float dot(const float* x, const float* y, int64_t D) {
  v8 s = set(0);
  for (int64_t j = 0; j < D; j += 8) s = fma(ld(x + j), ld(y + j), s);
  return sum(s);
}

// Products of q with eight vectors that follow each other.
inline v8 dots8(const float* q, const float* n, int64_t D) {
  v8 a[8];
  for (auto& one : a) one = set(0);
  for (int64_t j = 0; j < D; j += 8) {
    const v8 part = ld(q + j);
    for (int i = 0; i < 8; i++) a[i] = fma(part, ld(n + i * D + j), a[i]);
  }
  return sums(a);
}

// ---- Inputs

inline int64_t day_of(int64_t ms) { return ms >= 0 ? ms / DAY_MS : -((-ms + DAY_MS - 1) / DAY_MS); }

inline int64_t bucket(const int64_t* edges, int64_t count, int64_t value) {
  return std::lower_bound(edges, edges + count, value) - edges;
}

// Whether a position's inputs are those that were seen.
inline bool same(const Seen& s, const Batch& x, int64_t at) {
  return s.start == x.start[at] && s.title == x.title[at] && s.action == x.action[at] && s.device == x.device[at] &&
         std::memcmp(&s.share, x.share + at, sizeof(float)) == 0;
}

Seen see(const Model& m, const Batch& x, int64_t row, int64_t position) {
  const int64_t at = row * x.length + position, start = x.start[at], title = x.title[at], released = m.release_day[title];
  const int64_t gap = position ? std::max<int64_t>(start - x.start[at - 1], 0) : 0;
  const int64_t age = std::upper_bound(m.age_edges, m.age_edges + m.ages - 1, day_of(start) - released) - m.age_edges;
  Seen s;
  s.start = start, s.title = int32_t(title), s.share = x.share[at];
  s.action = uint8_t(x.action[at]), s.device = uint8_t(x.device[at]);
  s.gap = position ? uint8_t(1 + bucket(m.time_edges, EDGES, gap)) : 0;
  s.age = uint8_t(released == UNKNOWN_DAY ? m.ages : age);
  s.log_gap = std::log1p(float(gap) / 1000);
  return s;
}

// What a stage's inlet makes of a position's inputs, before its norm.
inline void inlet(const Model& m, const Stage& s, const Seen& x, float* y) {
  const int64_t D = m.width;
  const float *title = s.title + x.title * D, *action = s.action + x.action * D, *age = s.age + x.age * D;
  const float *device = s.device + x.device * D, *gap = s.gap + x.gap * D, *numbers = s.numbers;
  const float known = x.share >= 0;
  const v8 share = set(x.share * known), is_known = set(known), log_gap = set(x.log_gap);
  for (int64_t j = 0; j < D; j += 8) {
    v8 v = add(add(add(ld(title + j), ld(action + j)), add(ld(age + j), ld(device + j))), ld(gap + j));
    v = fma(share, ld(numbers + j), v), v = fma(is_known, ld(numbers + D + j), v);
    st(y + j, fma(log_gap, ld(numbers + 2 * D + j), v));
  }
}

// ---- Some rows, and all positions of them that are new.

struct Block {
  const Model& m;
  const Batch& x;
  int64_t rows, count, widest;      // widest: positions of the longest row, in eights
  const int64_t* row;               // in the batch
  int64_t *first, *newest;          // of each row: its new positions, by their places in the block
  int64_t *of, *position;           // of each new position: its row in the block, its place there
  float *bias, *context, *weights;  // bias: [count][stages x H + 1][widest]
  float* cat;                       // [count][2 D]: what the stages before said
  float *probs, *user;              // [count][logits], [rows][D]

  int64_t biases() const { return m.stages * m.heads + 1; }
  int64_t batch_row(int64_t r) const { return row[r]; }
  int64_t size(int64_t r) const { return x.size[row[r]]; }
  uint8_t* slot(int64_t r) const { return x.slots + x.slot[row[r]] * x.slot_bytes; }
  Seen* seen(int64_t r) const { return (Seen*)slot(r); }
  half* kept(int64_t r, int64_t layer) const {  // of all layers but the first
    return (half*)(slot(r) + x.window * sizeof(Seen)) + (layer - 1) * x.window * m.width;
  }
};

void place(Block& b) {
  const Model& m = b.m;
  const int64_t NB = b.biases();
  auto* k = scratch.take<int32_t>(b.widest);
  for (int64_t t = 0; t < b.count; t++) {
    const int64_t p = b.position[t], row = b.batch_row(b.of[t]);
    b.seen(b.of[t])[p] = see(m, b.x, row, p);
    const int64_t *start = b.x.start + row * b.x.length, now = start[p];
    for (int64_t l = p, bucket = 0; l >= 0; l--) {  // starts never fall
      while (bucket < EDGES && m.time_edges[bucket] < now - start[l]) bucket++;
      k[l] = int32_t(bucket);
    }
    float* bias = b.bias + t * NB * b.widest;
    for (int64_t i = 0; i < NB; i++, bias += b.widest) {
      const float *order = m.order + i * NEAR, *time = m.time + i * (EDGES + 1);
      const int64_t far = std::max<int64_t>(p - NEAR + 1, 0);
      for (int64_t l = 0; l < far; l++) bias[l] = order[NEAR - 1] + time[k[l]];
      for (int64_t l = far; l <= p; l++) bias[l] = order[p - l] + time[k[l]];
      for (int64_t l = p + 1; l < up8(p + 1); l++) bias[l] = -INFINITY;
      if (m.stage[i / m.heads % m.stages].role == SHORT && i < m.stages * m.heads)
        for (int64_t l = 0; l <= p && now - start[l] > m.within_ms; l++) bias[l] = -INFINITY;
    }
  }
}

// What a layer looks back at, of one row, from position `from` on; zeros before it and behind.
void look_back(const Block& b, int64_t layer, int64_t r, int64_t from, const float* normed) {
  const int64_t D = b.m.width, size = b.size(r);
  float* to = b.context;
  std::memset(to + (from & ~7) * D, 0, (from & 7) * D * sizeof(float));
  std::memset(to + size * D, 0, (up8(size) - size) * D * sizeof(float));
  if (layer == 0) {
    const Stage& s = b.m.stage[0];
    float* first = to + from * D;
    for (int64_t l = from; l < size; l++) inlet(b.m, s, b.seen(r)[l], to + l * D);
    norms(size - from, first, D, s.norm, s.norm_bias, first, D);
    norms(size - from, first, D, nullptr, nullptr, first, D);
    for (int64_t j = from * D; j < size * D; j += 8)
      st(to + j, _mm256_cvtph_ps(_mm256_cvtps_ph(ld(to + j), _MM_FROUND_TO_NEAREST_INT)));
    return;
  }
  half* kept = b.kept(r, layer);
  for (int64_t t = b.first[r]; t <= b.newest[r]; t++)
    for (int64_t j = 0; j < D; j += 8) st(kept + b.position[t] * D + j, ld(normed + t * D + j));
  for (int64_t j = from * D; j < size * D; j += 8) st(to + j, ld(kept + j));
}

// Sums of vectors n[from..to], weighted, of G heads at once: y[G][D].
template <int G, int C>
inline void weighted(const float* weights, int64_t stride, const float* n, int64_t D, int64_t from, int64_t to, float* y) {
  v8 a[G][C];
  for (auto& head : a)
    for (auto& one : head) one = set(0);
  for (int64_t l = from; l <= to; l++)
    for (int c = 0; c < C; c++) {
      const v8 part = ld(n + l * D + 8 * c);
      for (int g = 0; g < G; g++) a[g][c] = fma(set(weights[g * stride + l]), part, a[g][c]);
    }
  for (int g = 0; g < G; g++)
    for (int c = 0; c < C; c++) st(y + g * D + 8 * c, a[g][c]);
}

// What G heads find: softmax(q n^T + bias) n
template <int G>
void attend(const float* q, const Block& b, const float* bias, int64_t from, int64_t p, float* y) {
  const int64_t D = b.m.width, begin = from & ~7, end = up8(p + 1), stride = b.widest;
  float total[G];
  for (int g = 0; g < G; g++) {
    float* w = b.weights + g * stride;
    v8 most = set(-INFINITY), all = set(0);
    for (int64_t l = begin; l < end; l += 8) {
      const v8 s = add(dots8(q + g * D, b.context + l * D, D), ld(bias + g * stride + l));
      st(w + l, s);
      most = _mm256_max_ps(most, s);
    }
    const v8 top = set(largest(most));
    for (int64_t l = begin; l < end; l += 8) {
      const v8 e = exp8(sub(ld(w + l), top));
      st(w + l, e);
      all = add(all, e);
    }
    total[g] = sum(all);
  }
  int64_t j = 0;
  for (; j + 32 <= D; j += 32) weighted<G, 4>(b.weights, stride, b.context + j, D, from, p, y + j);
  for (; j < D; j += 8) weighted<G, 1>(b.weights, stride, b.context + j, D, from, p, y + j);
  for (int g = 0; g < G; g++)
    for (j = 0; j < D; j += 8) st(y + g * D + j, _mm256_div_ps(ld(y + g * D + j), set(total[g])));
}

// One layer: x [count][D] becomes its output, or [rows][D] that of the newest positions alone.
void through(const Block& b, const Layer& w, int64_t layer, int64_t stage, bool newest_only, float* x) {
  const Model& m = b.m;
  const int64_t D = m.width, H = m.heads, NB = b.biases(), asked = newest_only ? b.rows : b.count;
  float* normed = scratch.take<float>(b.count * D);
  norms(b.count, x, D, nullptr, nullptr, normed, D);

  const int64_t wide = up16(H * D + D), up = up16(2 * m.hidden + D), narrow = up16(D);
  float *query = scratch.take<float>(asked * wide), *found = scratch.take<float>(asked * H * D);
  float *added = scratch.take<float>(asked * narrow), *fed = scratch.take<float>(asked * up);
  float* at = normed;
  if (newest_only) {
    at = scratch.take<float>(asked * D);
    for (int64_t r = 0; r < b.rows; r++) std::memcpy(at + r * D, normed + b.newest[r] * D, D * sizeof(float));
    for (int64_t r = 0; r < b.rows; r++) std::memmove(x + r * D, x + b.newest[r] * D, D * sizeof(float));
  }
  product(asked, wide, D, at, D, w.query, w.query_bias, query, wide);

  for (int64_t r = 0; r < b.rows; r++) {
    int64_t from = 0;
    if (m.stage[stage].role == SHORT) {  // what all of the row's queries see nothing of
      const Seen* seen = b.seen(r);
      while (seen[b.position[b.first[r]]].start - seen[from].start > m.within_ms) from++;
    }
    look_back(b, layer, r, from, normed);
    for (int64_t t = newest_only ? b.newest[r] : b.first[r]; t <= b.newest[r]; t++) {
      const int64_t i = newest_only ? r : t;
      const float* bias = b.bias + (t * NB + stage * H) * b.widest;
      int64_t h = 0;
      for (; h + 2 <= H; h += 2)
        attend<2>(query + i * wide + h * D, b, bias + h * b.widest, from, b.position[t], found + i * H * D + h * D);
      if (h < H) attend<1>(query + i * wide + h * D, b, bias + h * b.widest, from, b.position[t], found + i * H * D + h * D);
    }
  }
  product(asked, narrow, H * D, found, H * D, w.out, w.out_bias, added, narrow);
  for (int64_t i = 0; i < asked; i++)
    for (int64_t j = 0; j < D; j += 8)
      st(x + i * D + j, fma(sigmoid8(ld(query + i * wide + H * D + j)), ld(added + i * narrow + j), ld(x + i * D + j)));

  norms(asked, x, D, nullptr, nullptr, at, D);
  product(asked, up, D, at, D, w.feed_in, w.feed_in_bias, fed, up);
  for (int64_t i = 0; i < asked; i++)
    for (int64_t j = 0; j < m.hidden; j += 8) {
      float* row = fed + i * up + j;
      st(row, mul(mul(ld(row), sigmoid8(ld(row))), ld(row + m.hidden)));
    }
  product(asked, narrow, m.hidden, fed, up, w.feed_out, w.feed_out_bias, added, narrow);
  for (int64_t i = 0; i < asked; i++)
    for (int64_t j = 0; j < D; j += 8)
      st(x + i * D + j, fma(sigmoid8(ld(fed + i * up + 2 * m.hidden + j)), ld(added + i * narrow + j), ld(x + i * D + j)));
}

// The heads' distributions for `count` vectors x [count][D], into b.probs.
void predict(const Block& b, int64_t count, const float* x) {
  const Model& m = b.m;
  const int64_t wide = up16(m.logits);
  product(count, wide, m.width, x, m.width, m.logit, m.logit_bias, b.probs, wide);
  float* e = scratch.take<float>(wide + 8);
  for (int64_t t = 0; t < count; t++)
    for (int64_t i = 0; i < m.intents; i++) {
      const Intent& intent = m.intent[i];
      if (!intent.predicted) continue;
      const int64_t C = intent.classes;
      float *p = b.probs + t * wide + intent.logit, most = *std::max_element(p, p + C), all = 0;
      for (int64_t c = 0; c < C; c++) e[c] = p[c] - most;
      for (int64_t c = C; c < up8(C); c++) e[c] = 0;
      for (int64_t c = 0; c < C; c += 8) st(e + c, exp8(ld(e + c)));
      for (int64_t c = 0; c < C; c++) all += e[c];
      for (int64_t c = 0; c < C; c++) p[c] = e[c] / all;
    }
}

// The intent embedding of every position, into `z` (rows 2 D apart), and the newest into the answer.
void aggregate(const Block& b, float* z) {
  const Model& m = b.m;
  const int64_t D = m.width, narrow = up16(D), wide = up16(m.logits);
  float *said = scratch.take<float>(m.intents * b.count * narrow), *weight = scratch.take<float>(m.intents);
  for (int64_t i = 0; i < m.intents; i++)
    if (const Intent& one = m.intent[i]; one.predicted)
      product(b.count, narrow, one.classes, b.probs + one.logit, wide, one.project, one.project_bias,
              said + i * b.count * narrow, narrow);
  for (int64_t t = 0; t < b.count; t++) {
    float most = -INFINITY, all = 0;
    for (int64_t i = 0; i < m.intents; i++) {
      weight[i] = -INFINITY;
      if (m.intent[i].predicted) weight[i] = dot(said + (i * b.count + t) * narrow, m.attend, D) + m.attend[D];
      most = std::max(most, weight[i]);
    }
    for (int64_t i = 0; i < m.intents; i++) all += weight[i] = std::exp(weight[i] - most);
    for (int64_t i = 0; i < m.intents; i++) weight[i] /= all;
    for (int64_t j = 0; j < D; j += 8) {
      v8 v = set(0);
      for (int64_t i = 0; i < m.intents; i++)
        if (m.intent[i].predicted) v = fma(set(weight[i]), ld(said + (i * b.count + t) * narrow + j), v);
      st(z + t * 2 * D + j, v);
    }
    if (b.newest[b.of[t]] == t) {
      const int64_t row = b.batch_row(b.of[t]);
      std::memcpy(b.x.attention + row * m.intents, weight, m.intents * sizeof(float));
      std::memcpy(b.x.embedding + row * D, z + t * 2 * D, D * sizeof(float));
    }
  }
}

// All stages; what the newest positions are answered with is in b.user and, of their rows, b.probs.
void encode(Block& b) {
  const Model& m = b.m;
  const int64_t D = m.width, narrow = up16(D);
  float *x = scratch.take<float>(b.count * D), *before = scratch.take<float>(b.count * narrow);
  int64_t said = 0, layer = 0;
  for (int64_t s = 0; s < m.stages; s++) {
    const Stage& stage = m.stage[s];
    if (stage.before) product(b.count, narrow, said, b.cat, 2 * D, stage.before, nullptr, before, narrow);
    for (int64_t t = 0; t < b.count; t++) {
      inlet(m, stage, b.seen(b.of[t])[b.position[t]], x + t * D);
      if (stage.before)
        for (int64_t j = 0; j < D; j += 8) st(x + t * D + j, add(ld(x + t * D + j), ld(before + t * narrow + j)));
    }
    norms(b.count, x, D, stage.norm, stage.norm_bias, x, D);
    for (int64_t i = 0; i < stage.layers; i++, layer++)
      through(b, m.layer[layer], layer, s, stage.role == ITEM && i + 1 == stage.layers, x);
    if (stage.role == SHORT) {
      norms(b.count, x, D, stage.outlet, stage.outlet_bias, b.cat, 2 * D);
      said += D;
    } else if (stage.role == INTENT) {
      norms(b.count, x, D, stage.outlet, stage.outlet_bias, x, D);
      predict(b, b.count, x);
      aggregate(b, b.cat + said);
      said += D;
      const int64_t wide = up16(m.logits);
      for (int64_t r = 0; r < b.rows; r++)  // never behind what is still to be moved
        std::memmove(b.probs + r * wide, b.probs + b.newest[r] * wide, wide * sizeof(float));
    } else {
      norms(b.rows, x, D, stage.outlet, stage.outlet_bias, b.user, D);
    }
  }
  if (!m.hierarchical) {
    if (m.logits) predict(b, b.rows, b.user);
    for (int64_t r = 0; r < b.rows; r++) {
      std::memset(b.x.attention + b.batch_row(r) * m.intents, 0, m.intents * sizeof(float));
      std::memset(b.x.embedding + b.batch_row(r) * D, 0, D * sizeof(float));
    }
  }
  for (int64_t r = 0; r < b.rows; r++) std::memcpy(b.x.user + b.batch_row(r) * D, b.user + r * D, D * sizeof(float));
}

// ---- Titles

inline bool is_candidate(const Model& m, int64_t title) { return title >= FIRST_ROW && title < FIRST_ROW + m.vocabulary; }

// What the window adds to its titles' scores: of each title the latest, whose next is behind none.
void recall(const Block& b, int64_t r, const float* query, float constant, float* score) {
  const Model& m = b.m;
  const int64_t D = m.width, row = b.batch_row(r), size = b.size(r), *title = b.x.title + row * b.x.length;
  const float* bias = b.bias + (b.newest[r] * b.biases() + m.stages * m.heads) * b.widest;
  int64_t layers = 0;
  for (int64_t s = 0; s < m.stages; s++) layers += m.stage[s].layers;
  if (layers == 1) look_back(b, 0, r, 0, nullptr);
  else {
    const half* kept = b.kept(r, layers - 1);
    for (int64_t j = 0; j < size * D; j += 8) st(b.context + j, ld(kept + j));
    std::memset(b.context + size * D, 0, (up8(size) - size) * D * sizeof(float));
  }
  float* gain = b.weights;
  for (int64_t l = 0; l < size; l += 8)
    st(gain + l, softplus8(add(dots8(query, b.context + l * D, D), add(ld(bias + l), set(constant)))));
  int64_t places = 16;  // of a set of titles, half of it empty
  while (places < 2 * size) places *= 2;
  auto* later = scratch.take<int32_t>(places);
  std::memset(later, 0, places * sizeof(int32_t));
  for (int64_t l = size - 1; l >= 0; l--) {
    if (!is_candidate(m, title[l])) continue;
    int64_t at = title[l] * 0x9E3779B1 >> 7 & (places - 1);
    while (later[at] && later[at] != title[l]) at = (at + 1) & (places - 1);
    if (later[at] == 0) score[title[l] - FIRST_ROW] += gain[l], later[at] = int32_t(title[l]);
  }
}

// The `top` best of scores [V], descending; how many there are that may be proposed.
int64_t best_of(const float* score, int64_t V, int64_t top, float* best, int32_t* who) {
  const int64_t groups = V / 64;
  float bound = -INFINITY;
  if (groups >= top) {  // where a group holds one of the best, its maximum is among the best maxima
    float* most = scratch.take<float>(groups);
    for (int64_t g = 0; g < groups; g++) {
      v8 y = ld(score + g * 64);
      for (int j = 8; j < 64; j += 8) y = _mm256_max_ps(y, ld(score + g * 64 + j));
      most[g] = largest(y);
    }
    std::nth_element(most, most + top - 1, most + groups, std::greater<float>());
    bound = std::nextafter(most[top - 1], -INFINITY);
  }
  int64_t have = 0;
  for (int64_t v = 0; v < V; v += 8) {
    unsigned above = _mm256_movemask_ps(_mm256_cmp_ps(ld(score + v), set(bound), _CMP_GT_OQ));
    for (; above; above &= above - 1) {
      const int32_t one = int32_t(v + __builtin_ctz(above));
      const float y = score[one];
      if (!(y > bound)) continue;
      int64_t i = have < top ? have++ : top - 1;
      for (; i && best[i - 1] < y; i--) best[i] = best[i - 1], who[i] = who[i - 1];
      best[i] = y, who[i] = one;
      if (have == top) bound = std::max(bound, best[top - 1]);
    }
  }
  return have;
}

// What a distribution over titles says of the next one's age: [ages]. Titles lie in order of release.
void ages_told(const Model& m, const float* weight, float share, int64_t now_ms, float* age) {
  const int64_t* days = m.release_day + FIRST_ROW;
  int64_t high = m.vocabulary;
  for (int64_t i = 0; i < m.ages; i++) {
    const int64_t last = i + 1 < m.ages ? day_of(now_ms) - m.age_edges[i] : UNKNOWN_DAY;
    const int64_t low = std::upper_bound(days, days + high, last) - days;
    v8 all = set(0);
    float rest = 0;
    int64_t v = low;
    for (; v + 8 <= high; v += 8) all = add(all, ld(weight + v));
    for (; v < high; v++) rest += weight[v];
    age[i] = (sum(all) + rest) * share;
    high = low;
  }
}

// The answers' titles, and the intents' distributions, of rows [first, first + count) of the block.
void answer_titles(const Block& b, int64_t first, int64_t count) {
  const Model& m = b.m;
  const int64_t D = m.width, V = m.vocabulary, wide = up16(V), labels = up16(m.shares), K = m.top, narrow = up16(D);
  float *score = scratch.take<float>(count * wide), *told = scratch.take<float>(count * labels);
  float *share = scratch.take<float>(count), *best = scratch.take<float>(K), *age = scratch.take<float>(m.ages);
  float* query = scratch.take<float>(count * narrow);
  auto* who = scratch.take<int32_t>(K);
  const float* user = b.user + first * D;
  product(count, wide, D, user, D, m.candidates, nullptr, score, wide);
  if (m.recall) product(count, narrow, D, user, D, m.recall, m.recall_bias, query, narrow);
  for (int64_t i = 0; i < count; i++) {
    const int64_t r = first + i, row = b.batch_row(r), *title = b.x.title + row * b.x.length;
    float* s = score + i * wide;
    if (m.recall) recall(b, r, query + i * narrow, dot(user + i * D, m.recall_key, D) + m.recall_key[D], s);
    if (!m.repeats)
      for (int64_t l = 0; l < b.size(r); l++)
        if (is_candidate(m, title[l])) s[title[l] - FIRST_ROW] = -INFINITY;
    for (int64_t v = V; v < wide; v++) s[v] = -INFINITY;
    const int64_t have = best_of(s, wide, K, best, who);
    const float most = have ? best[0] : 0;
    v8 all = set(0);
    for (int64_t v = 0; v < wide; v += 8) {
      const v8 e = exp8(sub(ld(s + v), set(most)));
      st(s + v, e);
      all = add(all, e);
    }
    const float total = sum(all);
    share[i] = 1 / total;
    for (int64_t k = 0; k < K; k++) {
      b.x.hash[row * K + k] = k < have ? m.hash[who[k] + FIRST_ROW] : 0;
      b.x.score[row * K + k] = k < have ? s[who[k]] / total : 0;
    }
    b.x.log_norm[row] = most + std::log(total);
  }

  std::memset(told, 0, count * labels * sizeof(float));
  if (m.shares)
    for (int64_t v = 0; v < V; v += 256) {  // of the titles' shares, what stays in the processor's cache
      const int64_t some = std::min<int64_t>(256, V - v);
      for (int64_t n = 0; n < labels; n += 16)
        product<true>(count, 16, some, score + v, wide, m.title_shares + n * V + v * 16, nullptr, told + n, labels);
    }
  for (int64_t i = 0; i < count; i++) {
    const int64_t r = first + i, row = b.batch_row(r);
    ages_told(m, score + i * wide, share[i], b.x.start[row * b.x.length + b.size(r) - 1], age);
    for (int64_t k = 0; k < m.intents; k++) {
      const Intent& intent = m.intent[k];
      const int64_t C = intent.classes;
      float *y = b.x.probs[k] + row * C, all = 0;
      if (!intent.predicted) {
        std::memset(y, 0, C * sizeof(float));
        continue;
      }
      const float* head = b.probs + r * up16(m.logits) + intent.logit;
      std::memcpy(y, head, C * sizeof(float));
      if (intent.told == NOTHING) continue;
      for (int64_t c = 0; c < C; c++) {
        const float by_titles = intent.told == AGE ? age[c] : told[i * labels + intent.share + c] * share[i];
        all += y[c] += intent.title_share * (by_titles - y[c]);
      }
      for (int64_t c = 0; c < C; c++) y[c] /= all;
    }
  }
}

void answer(const Model& m, const Batch& x, const int64_t* row, int64_t rows, int64_t count) {
  scratch.restart();
  int64_t longest = 0;
  for (int64_t r = 0; r < rows; r++) longest = std::max(longest, x.size[row[r]]);
  const int64_t D = m.width, widest = up8(longest);
  Block b = {m, x, rows, count, widest, row, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}};
  b.first = scratch.take<int64_t>(rows), b.newest = scratch.take<int64_t>(rows);
  b.of = scratch.take<int64_t>(count), b.position = scratch.take<int64_t>(count);
  int64_t t = 0;
  for (int64_t r = 0; r < rows; r++) {
    b.first[r] = t;
    for (int64_t p = x.reused[row[r]]; p < b.size(r); p++, t++) b.of[t] = r, b.position[t] = p;
    b.newest[r] = t - 1;
  }
  b.bias = scratch.take<float>(count * b.biases() * widest);
  b.context = scratch.take<float>(widest * D), b.weights = scratch.take<float>(2 * widest);
  b.cat = scratch.take<float>(count * 2 * D), b.user = scratch.take<float>(rows * D);
  b.probs = scratch.take<float>(count * up16(m.logits));
  place(b);
  encode(b);
  for (int64_t r = 0; r < rows; r += SCORED) answer_titles(b, r, std::min(SCORED, rows - r));
}

int64_t nanoseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000LL + now.tv_nsec;
}

bool in_range(const Model& m, const Batch& x, int64_t at) {
  return x.title[at] >= 0 && x.title[at] < m.titles && x.action[at] >= 0 && x.action[at] < m.actions &&
         x.device[at] >= 0 && x.device[at] < m.devices;
}

}  // namespace

// Answers a batch of different slots. `reused` is written, and so is `valid`: how much of each slot is
// good whatever happens; the caller sets it to the window's size when the answer is sound.
// Returns the nanoseconds that windows took of which nothing was reused, or -1 for inputs out of range.
extern "C" int64_t fm_answer(const Model* m, const Batch* batch) {
  const Batch& x = *batch;
  for (int64_t r = 0; r < x.rows; r++) {
    const int64_t size = x.size[r], slot = x.slot[r];
    if (size < 1 || size > x.length || size > x.window) return -1;
    const Seen* seen = (const Seen*)(x.slots + slot * x.slot_bytes);
    const int64_t most = std::min(x.valid[slot], size - 1);
    int64_t p = 0;
    while (p < most && same(seen[p], x, r * x.length + p)) p++;
    x.reused[r] = p;
    for (int64_t l = p; l < size; l++)
      if (!in_range(*m, x, r * x.length + l)) return -1;
  }
  for (int64_t r = 0; r < x.rows; r++) x.valid[x.slot[r]] = x.reused[r];

  auto* order = (int64_t*)std::malloc(x.rows * sizeof(int64_t));  // lives as long as all blocks
  if (order == nullptr) std::abort();
  int64_t hits = 0, place = 0, whole = 0;
  for (int64_t r = 0; r < x.rows; r++) if (x.reused[r]) order[hits++] = r;
  place = hits;
  for (int64_t r = 0; r < x.rows; r++) if (!x.reused[r]) order[place++] = r;
  const auto new_of = [&](int64_t i) { return x.size[order[i]] - x.reused[order[i]]; };
  for (int64_t from = 0, to; from < x.rows; from = to) {
    const int64_t end = from < hits ? hits : x.rows, began = nanoseconds();
    int64_t count = new_of(from);
    for (to = from + 1; to < end && count + new_of(to) <= BLOCK; to++) count += new_of(to);
    answer(*m, x, order + from, to - from, count);
    if (from >= hits) whole += nanoseconds() - began;
  }
  std::free(order);
  return whole;
}
