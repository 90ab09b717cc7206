// A BERT encoder in float16 on processors with AVX512-FP16, one thread, rows packed without padding.
//
// Products are summed in float16 over at most 384 inputs (two interleaved chains of 192), then in float32; residuals,
// normalisation, softmax and the mean are in float32. A row's result is the same whatever rows are beside it: every
// output is one sum in a fixed order.
//
// Matrix layout: inputs row-major; weights in panels of 32 outputs, within a panel by pairs of inputs,
// [panel][input / 2][output % 32][input % 2], so that one 32-bit broadcast feeds two inputs at once.
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <vector>

typedef _Float16 half;
constexpr int ROWS = 12, PANEL = 32, CHUNK = 384;  // 12 x 2 sums stay in registers

struct Layer {  // weights packed as above, biases and norms float32
  const half *qkv, *out, *up, *down;
  const float *qkv_bias, *out_bias, *up_bias, *down_bias, *norm1, *norm1_bias, *norm2, *norm2_bias;
};
struct Model {
  int width, heads, inner, layers;
  float epsilon;
  const float *words, *positions, *norm, *norm_bias;  // positions hold the one token type's vector too
  const Layer* layer;
};

static inline __m512 exp16(__m512 x) {  // relative error 3e-6
  x = _mm512_max_ps(x, _mm512_set1_ps(-87.f));
  __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), _mm512_fnmadd_ps(n, _mm512_set1_ps(.693359375f), x));
  __m512 y = _mm512_set1_ps(1 / 120.f);
  for (float c : {1 / 24.f, 1 / 6.f, .5f, 1.f, 1.f}) y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(c));
  return _mm512_scalef_ps(y, n);
}

static inline __m512 gelu16(__m512 x) {  // x/2 (1 + erf(x/sqrt 2)); erf by Abramowitz and Stegun 7.1.26, error 1.5e-7
  __m512 z = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(.70710678f));
  __m512 t = _mm512_div_ps(_mm512_set1_ps(1.f), _mm512_fmadd_ps(z, _mm512_set1_ps(.3275911f), _mm512_set1_ps(1.f)));
  __m512 y = _mm512_set1_ps(1.061405429f);
  for (float c : {-1.453152027f, 1.421413741f, -.284496736f, .254829592f}) y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(c));
  y = _mm512_mul_ps(_mm512_mul_ps(y, t), exp16(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_mul_ps(z, z))));
  __m512 tail = _mm512_mul_ps(_mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(.5f)), y);  // |x|/2 (1 - erf)
  return _mm512_sub_ps(_mm512_max_ps(x, _mm512_setzero_ps()), tail);
}

static inline void store_half(half* to, __m512 x) { _mm256_storeu_si256((__m256i*)to, _mm512_cvtps_ph(x, 0)); }

static inline __m512 pair_sum(__m512h a) {  // 16 pairs of chains -> 16 sums
  __m512h odd = _mm512_castsi512_ph(_mm512_srli_epi32(_mm512_castph_si512(a), 16));
  return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_castph_si512(_mm512_add_ph(a, odd))));
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

// x (tokens, inputs) times weights, plus bias, to `store(place in (tokens, outputs), first 16, last 16)`; tokens in whole blocks of 12.
template <class Store>
static inline void linear(const half* x, int tokens, int inputs, const half* weights, const float* bias, int outputs, Store store) {
  for (int n = 0; n < outputs; n += PANEL) {
    __m512 c0 = _mm512_loadu_ps(bias + n), c1 = _mm512_loadu_ps(bias + n + 16);
    for (int m = 0; m < tokens; m += ROWS)
      tile(x + (size_t)m * inputs, inputs, weights + (size_t)n * inputs, inputs, [&](int r, __m512 u, __m512 v) {
        store((size_t)(m + r) * outputs + n, _mm512_add_ps(u, c0), _mm512_add_ps(v, c1));
      });
  }
}

static void normalise(float* x, half* h, int tokens, int width, const float* scale, const float* shift, float epsilon) {
  for (int t = 0; t < tokens; t++, x += width, h += width) {
    __m512 s = _mm512_setzero_ps(), q = s;
    for (int i = 0; i < width; i += 16) s = _mm512_add_ps(s, _mm512_loadu_ps(x + i));
    __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(s) / width);
    for (int i = 0; i < width; i += 16) {
      __m512 d = _mm512_sub_ps(_mm512_loadu_ps(x + i), mean);
      q = _mm512_fmadd_ps(d, d, q);
    }
    __m512 inverse = _mm512_set1_ps(1.f / __builtin_sqrtf(_mm512_reduce_add_ps(q) / width + epsilon));
    for (int i = 0; i < width; i += 16) {
      __m512 d = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(x + i), mean), inverse);
      __m512 y = _mm512_fmadd_ps(d, _mm512_loadu_ps(scale + i), _mm512_loadu_ps(shift + i));
      _mm512_storeu_ps(x + i, y);
      store_half(h + i, y);
    }
  }
}

// One head of one row: q, k, v (length, depth) with `stride` halves between tokens -> to (length, depth), `width` apart.
static void attend(const half* q, const half* k, const half* v, int stride, int length, int depth, half* to, int width,
                   std::vector<half>& keys, std::vector<half>& values, std::vector<float>& scores, std::vector<half>& shares) {
  int padded = (length + PANEL - 1) / PANEL * PANEL;
  keys.assign((size_t)padded * depth, 0);
  values.assign((size_t)padded * depth, 0);
  scores.resize((size_t)padded * ROWS);
  shares.assign((size_t)padded * ROWS, 0);
  for (int j = 0; j < length; j++) {
    half* panel = &keys[(size_t)(j / PANEL) * PANEL * depth + (j % PANEL) * 2];
    for (int d = 0; d < depth; d += 2) std::memcpy(panel + (size_t)d * PANEL, k + (size_t)j * stride + d, 4);
    for (int d = 0; d < depth; d++)
      values[(size_t)(d / PANEL) * PANEL * padded + (size_t)(j / 2) * 2 * PANEL + (d % PANEL) * 2 + j % 2] = v[(size_t)j * stride + d];
  }
  for (int i = 0; i < length; i += ROWS) {
    int rows = std::min(ROWS, length - i);
    for (int j = 0; j < padded; j += PANEL)
      tile(q + (size_t)i * stride, stride, &keys[(size_t)j * depth], depth, [&](int r, __m512 a, __m512 b) {
        _mm512_storeu_ps(&scores[(size_t)r * padded + j], a);
        _mm512_storeu_ps(&scores[(size_t)r * padded + j + 16], b);
      });
    float inverse[ROWS] = {};
    for (int r = 0; r < rows; r++) {
      float* s = &scores[(size_t)r * padded];
      std::fill(s + length, s + padded, -1e30f);  // exp gives less than any half can hold
      __m512 most = _mm512_loadu_ps(s), total = _mm512_setzero_ps();
      for (int j = 16; j < padded; j += 16) most = _mm512_max_ps(most, _mm512_loadu_ps(s + j));
      most = _mm512_set1_ps(_mm512_reduce_max_ps(most));
      for (int j = 0; j < padded; j += 16) {
        __m512 e = exp16(_mm512_sub_ps(_mm512_loadu_ps(s + j), most));
        total = _mm512_add_ps(total, e);
        store_half(&shares[(size_t)r * padded + j], e);
      }
      inverse[r] = 1.f / _mm512_reduce_add_ps(total);
    }
    for (int d = 0; d < depth; d += PANEL)
      tile(shares.data(), padded, &values[(size_t)d * padded], padded, [&](int r, __m512 a, __m512 b) {
        if (r >= rows) return;
        __m512 factor = _mm512_set1_ps(inverse[r]);
        store_half(to + (size_t)(i + r) * width + d, _mm512_mul_ps(a, factor));
        store_half(to + (size_t)(i + r) * width + d + 16, _mm512_mul_ps(b, factor));
      });
  }
}

// `ids`: tokens of all rows, one after the other; `lengths` (rows); the first `skip` tokens of a row are left out of its
// mean. `means` (rows, width), float32.
extern "C" void encode(const Model* model, const int* ids, const int* lengths, int rows, int skip, float* means) {
  const int width = model->width, inner = model->inner, depth = width / model->heads;
  int tokens = 0;
  for (int i = 0; i < rows; i++) tokens += lengths[i];
  const int block = (tokens + ROWS - 1) / ROWS * ROWS;
  // Queries are read in blocks of 12 from any token on: 12 tokens more.
  std::vector<half> h((size_t)block * width), qkv((size_t)(block + ROWS) * 3 * width), context((size_t)block * width), wide((size_t)block * inner);
  std::vector<float> x((size_t)block * width), scores;
  std::vector<half> keys, values, shares;
  for (int i = 0, t = 0; i < rows; i++)
    for (int p = 0; p < lengths[i]; p++, t++)
      for (int d = 0; d < width; d++)
        x[(size_t)t * width + d] = model->words[(size_t)ids[t] * width + d] + model->positions[(size_t)p * width + d];
  normalise(x.data(), h.data(), tokens, width, model->norm, model->norm_bias, model->epsilon);
  auto halves = [](half* y) {
    return [y](size_t at, __m512 u, __m512 v) { store_half(y + at, u), store_half(y + at + 16, v); };
  };
  auto add = [&](size_t at, __m512 u, __m512 v) {
    _mm512_storeu_ps(&x[at], _mm512_add_ps(_mm512_loadu_ps(&x[at]), u));
    _mm512_storeu_ps(&x[at + 16], _mm512_add_ps(_mm512_loadu_ps(&x[at + 16]), v));
  };
  for (const Layer* l = model->layer; l < model->layer + model->layers; l++) {
    linear(h.data(), block, width, l->qkv, l->qkv_bias, 3 * width, halves(qkv.data()));
    for (int i = 0, t = 0; i < rows; t += lengths[i++])
      for (int head = 0; head < model->heads; head++) {
        const half* q = &qkv[(size_t)t * 3 * width + head * depth];
        attend(q, q + width, q + 2 * width, 3 * width, lengths[i], depth, &context[(size_t)t * width + head * depth], width, keys, values,
               scores, shares);
      }
    linear(context.data(), block, width, l->out, l->out_bias, width, add);
    normalise(x.data(), h.data(), tokens, width, l->norm1, l->norm1_bias, model->epsilon);
    linear(h.data(), block, width, l->up, l->up_bias, inner, [&](size_t at, __m512 u, __m512 v) {
      store_half(&wide[at], gelu16(u));
      store_half(&wide[at + 16], gelu16(v));
    });
    linear(wide.data(), block, inner, l->down, l->down_bias, width, add);
    normalise(x.data(), h.data(), tokens, width, l->norm2, l->norm2_bias, model->epsilon);
  }
  for (int i = 0, t = 0; i < rows; t += lengths[i++])
    for (int d = 0; d < width; d++) {
      float sum = 0;
      for (int p = skip; p < lengths[i]; p++) sum += x[(size_t)(t + p) * width + d];
      means[(size_t)i * width + d] = sum / (lengths[i] - skip);
    }
}
