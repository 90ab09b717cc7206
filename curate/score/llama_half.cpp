// A Llama decoder, its output head and the divergences of two of them, in float16 on processors with AVX512-FP16; one thread.
//
// Rows are packed without padding. Products are summed in float16 over at most CHUNK inputs (two interleaved chains of half
// of that), then in float32; residuals, normalisation, softmax, logits and divergences are in float32. A row's result is
// the same whatever rows are beside it: every output is one sum in a fixed order.
//
// Matrix layout: inputs row-major; weights in panels of 32 outputs, within a panel by pairs of inputs,
// [panel][input / 2][output % 32][input % 2], so that one 32-bit broadcast feeds two inputs at once.
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <vector>

typedef _Float16 half;
constexpr int ROWS = 12, PANEL = 32, CHUNK = 384;  // 12 x 2 sums stay in registers
constexpr int GAP = 80;  // floats between rows of logits: a stride of whole pages would put all rows into the same few cache lines

struct Layer {  // gate and up take turns in a panel, 16 outputs each; the scale of the scores is in the queries' weights
  const half *qkv, *out, *gate_up, *down;
  const float *norm1, *norm2;
};
struct Shape {
  int width, heads, kv_heads, depth, inner;
  float epsilon;
  const float *cosine, *sine;  // (positions, depth)
};

static inline __m512 splat(float x) { return _mm512_set1_ps(x); }

static inline __m512 exp16(__m512 x) {  // relative error 2e-7; 0 below -87
  __mmask16 some = _mm512_cmp_ps_mask(x, splat(-87.f), _CMP_GT_OQ);
  __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, splat(1.44269504f)), 0);
  __m512 r = _mm512_fnmadd_ps(n, splat(-2.12194440e-4f), _mm512_fnmadd_ps(n, splat(.693359375f), x));
  __m512 y = splat(1 / 720.f);
  for (float c : {1 / 120.f, 1 / 24.f, 1 / 6.f, .5f, 1.f, 1.f}) y = _mm512_fmadd_ps(y, r, splat(c));
  return _mm512_maskz_scalef_ps(some, y, n);
}

static inline __m512 log16(__m512 x) {  // 2 artanh((f - 1) / (f + 1)) + e log 2, x = f 2^e, f in [.75, 1.5); relative error 2e-7
  __m512 f = _mm512_getmant_ps(x, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_src), e = _mm512_getexp_ps(_mm512_mul_ps(x, splat(4 / 3.f)));
  __m512 s = _mm512_div_ps(_mm512_sub_ps(f, splat(1.f)), _mm512_add_ps(f, splat(1.f))), q = _mm512_mul_ps(s, s);
  __m512 y = splat(2 / 9.f);
  for (float c : {2 / 7.f, 2 / 5.f, 2 / 3.f, 2.f}) y = _mm512_fmadd_ps(y, q, splat(c));
  return _mm512_fmadd_ps(e, splat(.69314718f), _mm512_mul_ps(y, s));
}

static inline void store_half(half* to, __m512 x) { _mm256_storeu_si256((__m256i*)to, _mm512_cvtps_ph(x, 0)); }
static inline __m512 load_half(const half* from) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)from)); }

static inline __m512 pair_sum(__m512h a) {  // 16 pairs of chains -> 16 sums
  __m512 even = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_castph_si512(a)));
  __m512 odd = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castph_si512(a), 16)));
  return _mm512_add_ps(even, odd);
}

// 12 rows of a (rows, inputs) times one panel of 32 outputs; `store(row, first 16, last 16)` gets the sums.
template <class Store>
static inline __attribute__((always_inline)) void tile(const half* a, int stride, const half* panel, int inputs, Store store) {
  __m512 sum[ROWS][2];
  for (int first = 0; first < inputs; first += CHUNK) {
    int pairs = std::min(CHUNK, inputs - first) / 2;
    __m512h s0[ROWS], s1[ROWS];
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) s0[r] = s1[r] = _mm512_setzero_ph();
    for (int p = 0; p < pairs; p++) {
      const half* b = panel + (size_t)first * PANEL + (size_t)p * 2 * PANEL;
      __m512h b0 = _mm512_loadu_ph(b), b1 = _mm512_loadu_ph(b + PANEL);
#pragma GCC unroll 12
      for (int r = 0; r < ROWS; r++) {
        int both;
        std::memcpy(&both, a + (size_t)r * stride + first + 2 * p, 4);
        __m512h x = _mm512_castsi512_ph(_mm512_set1_epi32(both));
        s0[r] = _mm512_fmadd_ph(x, b0, s0[r]);
        s1[r] = _mm512_fmadd_ph(x, b1, s1[r]);
      }
    }
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) {
      __m512 t0 = pair_sum(s0[r]), t1 = pair_sum(s1[r]);
      sum[r][0] = first ? _mm512_add_ps(sum[r][0], t0) : t0;
      sum[r][1] = first ? _mm512_add_ps(sum[r][1], t1) : t1;
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < ROWS; r++) store(r, sum[r][0], sum[r][1]);
}

// x (tokens, inputs) times weights to `store(token, first output, its 16, the next 16)`; tokens in whole blocks of 12.
template <class Store>
static inline void linear(const half* x, int tokens, int inputs, const half* weights, int outputs, Store store) {
  for (int n = 0; n < outputs; n += PANEL)
    for (int m = 0; m < tokens; m += ROWS)
      tile(x + (size_t)m * inputs, inputs, weights + (size_t)n * inputs, inputs, [&](int r, __m512 u, __m512 v) { store(m + r, n, u, v); });
}

static void normalise(const float* x, half* h, int tokens, int width, const float* scale, float epsilon) {
  for (int t = 0; t < tokens; t++, x += width, h += width) {
    __m512 q = _mm512_setzero_ps();
    for (int i = 0; i < width; i += 16) q = _mm512_fmadd_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(x + i), q);
    __m512 inverse = splat(1.f / __builtin_sqrtf(_mm512_reduce_add_ps(q) / width + epsilon));
    for (int i = 0; i < width; i += 16)
      store_half(h + i, _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(x + i), inverse), _mm512_loadu_ps(scale + i)));
  }
}

static void rotate(half* x, const float* cosine, const float* sine, int depth) {
  for (int d = 0; d < depth / 2; d += 16) {
    __m512 a = load_half(x + d), b = load_half(x + depth / 2 + d), c = _mm512_loadu_ps(cosine + d), s = _mm512_loadu_ps(sine + d);
    store_half(x + d, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)));
    store_half(x + depth / 2 + d, _mm512_fmadd_ps(b, c, _mm512_mul_ps(a, s)));
  }
}

struct Space {
  std::vector<half> keys, values, shares;
  std::vector<float> scores;
};

// Causal attention of one row. qkv (length, stride): queries of every head, then keys, then values -> to (length, heads x depth).
static void attend(const half* qkv, int stride, int length, const Shape& s, half* to, Space& space) {
  const int depth = s.depth, width = s.heads * depth, padded = (length + PANEL - 1) / PANEL * PANEL, group = s.heads / s.kv_heads;
  space.scores.resize((size_t)padded * ROWS);
  for (int kv = 0; kv < s.kv_heads; kv++) {
    space.keys.assign((size_t)padded * depth, 0);
    space.values.assign((size_t)padded * depth, 0);
    space.shares.assign((size_t)padded * ROWS, 0);
    const half *k = qkv + width + kv * depth, *v = k + s.kv_heads * depth;
    for (int j = 0; j < length; j++) {
      half* panel = &space.keys[(size_t)(j / PANEL) * PANEL * depth + (j % PANEL) * 2];
      for (int d = 0; d < depth; d += 2) std::memcpy(panel + (size_t)d * PANEL, k + (size_t)j * stride + d, 4);
      for (int d = 0; d < depth; d++)
        space.values[(size_t)(d / PANEL) * PANEL * padded + (size_t)(j / 2) * 2 * PANEL + (d % PANEL) * 2 + j % 2] = v[(size_t)j * stride + d];
    }
    for (int head = kv * group; head < (kv + 1) * group; head++)
      for (int i = 0; i < length; i += ROWS) {
        const int rows = std::min(ROWS, length - i), seen = (i + rows + PANEL - 1) / PANEL * PANEL;  // of the keys, in whole panels
        for (int j = 0; j < seen; j += PANEL)
          tile(qkv + (size_t)i * stride + head * depth, stride, &space.keys[(size_t)j * depth], depth, [&](int r, __m512 a, __m512 b) {
            _mm512_storeu_ps(&space.scores[(size_t)r * padded + j], a);
            _mm512_storeu_ps(&space.scores[(size_t)r * padded + j + 16], b);
          });
        float inverse[ROWS] = {};
        for (int r = 0; r < rows; r++) {
          float* score = &space.scores[(size_t)r * padded];
          std::fill(score + i + r + 1, score + seen, -1e30f);
          __m512 most = _mm512_loadu_ps(score), total = _mm512_setzero_ps();
          for (int j = 16; j < seen; j += 16) most = _mm512_max_ps(most, _mm512_loadu_ps(score + j));
          most = splat(_mm512_reduce_max_ps(most));
          for (int j = 0; j < seen; j += 16) {
            __m512 e = exp16(_mm512_sub_ps(_mm512_loadu_ps(score + j), most));
            total = _mm512_add_ps(total, e);
            store_half(&space.shares[(size_t)r * padded + j], e);
          }
          inverse[r] = 1.f / _mm512_reduce_add_ps(total);
        }
        for (int d = 0; d < depth; d += PANEL)
          tile(space.shares.data(), padded, &space.values[(size_t)d * padded], seen, [&](int r, __m512 a, __m512 b) {
            if (r >= rows) return;
            half* place = to + (size_t)(i + r) * width + head * depth + d;
            store_half(place, _mm512_mul_ps(a, splat(inverse[r])));
            store_half(place + 16, _mm512_mul_ps(b, splat(inverse[r])));
          });
      }
  }
}

// Runs `count` layers over x (tokens, width) float32, in place; `lengths` (rows): tokens of each row, one after the other.
extern "C" void layers(const Shape* shape, const Layer* layer, int count, const int* lengths, int rows, float* x) {
  const Shape& s = *shape;
  const int width = s.width, context = s.heads * s.depth, all = context + 2 * s.kv_heads * s.depth;
  int tokens = 0;
  for (int i = 0; i < rows; i++) tokens += lengths[i];
  const int block = (tokens + ROWS - 1) / ROWS * ROWS;
  // Queries are read in blocks of 12 from any token on: 12 tokens more.
  std::vector<half> h((size_t)block * width), qkv((size_t)(block + ROWS) * all), mixed((size_t)block * context), wide((size_t)block * s.inner);
  Space space;
  auto add = [&](int t, int n, __m512 u, __m512 v) {
    if (t >= tokens) return;
    float* to = x + (size_t)t * width + n;
    _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), u));
    _mm512_storeu_ps(to + 16, _mm512_add_ps(_mm512_loadu_ps(to + 16), v));
  };
  for (const Layer* l = layer; l < layer + count; l++) {
    normalise(x, h.data(), tokens, width, l->norm1, s.epsilon);
    linear(h.data(), block, width, l->qkv, all, [&](int t, int n, __m512 u, __m512 v) {
      store_half(&qkv[(size_t)t * all + n], u);
      store_half(&qkv[(size_t)t * all + n + 16], v);
    });
    for (int i = 0, t = 0; i < rows; t += lengths[i++]) {
      for (int p = 0; p < lengths[i]; p++)
        for (int head = 0; head < s.heads + s.kv_heads; head++)
          rotate(&qkv[(size_t)(t + p) * all + head * s.depth], s.cosine + (size_t)p * s.depth, s.sine + (size_t)p * s.depth, s.depth);
      attend(&qkv[(size_t)t * all], all, lengths[i], s, &mixed[(size_t)t * context], space);
    }
    linear(mixed.data(), block, context, l->out, width, add);
    normalise(x, h.data(), tokens, width, l->norm2, s.epsilon);
    linear(h.data(), block, width, l->gate_up, 2 * s.inner, [&](int t, int n, __m512 gate, __m512 up) {
      __m512 e = exp16(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_min_ps(_mm512_max_ps(gate, splat(-80.f)), splat(80.f))));
      store_half(&wide[(size_t)t * s.inner + n / 2], _mm512_mul_ps(_mm512_div_ps(gate, _mm512_add_ps(splat(1.f), e)), up));
    });
    linear(wide.data(), block, s.inner, l->down, width, add);
  }
}

// x (tokens, width) float32 -> h (tokens, width) float16, what the output head is applied to.
extern "C" void final_norm(const float* x, const float* scale, float epsilon, int tokens, int width, half* h) {
  normalise(x, h, tokens, width, scale, epsilon);
}

// Of each token: JSD, KL(P || Q), KL(Q || P), log P(target), log Q(target), to found (5, tokens), from the hidden states a and b
// (tokens in whole blocks of 12 are readable, width) and both heads (packed). `logits`: space for 2 x block x (vocabulary + GAP) floats.
//
// Two exponentials and one logarithm per entry. With S the sum of e = exp(logit - largest): sum P log P = sum e (logit - largest) / S
// - log S, and so for KL, in one pass that leaves e in the logits' place; a second pass adds up M log M, M = (P + Q) / 2.
extern "C" void divergences(const half* a, const half* b, int width, const half* head_a, const half* head_b, int vocabulary, const int* target,
                            int tokens, int block, float* logits, float* found) {
  const size_t stride = vocabulary + GAP;
  for (int first = 0; first < tokens; first += block) {
    const int count = std::min(block, tokens - first), padded = (count + ROWS - 1) / ROWS * ROWS;
    float *la = logits, *lb = logits + block * stride;
    for (int n = 0; n < vocabulary; n += PANEL) {
      auto to = [&](float* place) {
        return [=](int t, int, __m512 u, __m512 v) {
          _mm512_storeu_ps(place + t * stride + n, u);
          _mm512_storeu_ps(place + t * stride + n + 16, v);
        };
      };
      linear(a + (size_t)first * width, padded, width, head_a + (size_t)n * width, PANEL, to(la));
      linear(b + (size_t)first * width, padded, width, head_b + (size_t)n * width, PANEL, to(lb));
    }
    for (int t = 0; t < count; t++) {
      float *p = la + t * stride, *q = lb + t * stride;
      __m512 ma = _mm512_loadu_ps(p), mb = _mm512_loadu_ps(q);
      for (int n = 16; n < vocabulary; n += 16) ma = _mm512_max_ps(ma, _mm512_loadu_ps(p + n)), mb = _mm512_max_ps(mb, _mm512_loadu_ps(q + n));
      const float top_a = _mm512_reduce_max_ps(ma), top_b = _mm512_reduce_max_ps(mb);
      const int y = target[first + t];
      const float at_a = p[y] - top_a, at_b = q[y] - top_b;
      __m512 sa = _mm512_setzero_ps(), sb = sa, ea_a = sa, eb_b = sa, forth = sa, back = sa;
      for (int n = 0; n < vocabulary; n += 16) {
        __m512 da = _mm512_sub_ps(_mm512_loadu_ps(p + n), splat(top_a)), db = _mm512_sub_ps(_mm512_loadu_ps(q + n), splat(top_b));
        __m512 ea = exp16(da), eb = exp16(db), gap = _mm512_sub_ps(da, db);
        sa = _mm512_add_ps(sa, ea);
        sb = _mm512_add_ps(sb, eb);
        ea_a = _mm512_fmadd_ps(ea, da, ea_a);
        eb_b = _mm512_fmadd_ps(eb, db, eb_b);
        forth = _mm512_fmadd_ps(ea, gap, forth);
        back = _mm512_fnmadd_ps(eb, gap, back);
        _mm512_storeu_ps(p + n, ea);
        _mm512_storeu_ps(q + n, eb);
      }
      const float total_a = _mm512_reduce_add_ps(sa), total_b = _mm512_reduce_add_ps(sb);
      const float log_a = __builtin_logf(total_a), log_b = __builtin_logf(total_b);
      const __m512 fa = splat(.5f / total_a), fb = splat(.5f / total_b);
      __m512 middle = _mm512_setzero_ps();
      for (int n = 0; n < vocabulary; n += 16) {
        __m512 m = _mm512_fmadd_ps(_mm512_loadu_ps(p + n), fa, _mm512_mul_ps(_mm512_loadu_ps(q + n), fb));
        middle = _mm512_fmadd_ps(m, log16(_mm512_max_ps(m, splat(1e-37f))), middle);
      }
      float* to = found + first + t;
      const float own = .5f * (_mm512_reduce_add_ps(ea_a) / total_a - log_a + _mm512_reduce_add_ps(eb_b) / total_b - log_b);
      to[0] = std::min(std::max(own - _mm512_reduce_add_ps(middle), 0.f), .69314718f);
      to[tokens] = std::max(_mm512_reduce_add_ps(forth) / total_a - log_a + log_b, 0.f);
      to[2 * (size_t)tokens] = std::max(_mm512_reduce_add_ps(back) / total_b - log_b + log_a, 0.f);
      to[3 * (size_t)tokens] = at_a - log_a;
      to[4 * (size_t)tokens] = at_b - log_b;
    }
  }
}
