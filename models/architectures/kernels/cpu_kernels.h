/* The kernels of cpu.c, once for each dtype T of caches and activations. */

/* Ask for some columns of the row after this one, as far as they are likely to be its own and not shared ones. */
#define FETCH(columns, first_column, number) \
    if ((first_column) + (number) > shared) fetch((columns) + (first_column) * width, (number) * width * sizeof(T))

/* Softmax attention of one token per row, in blocks of columns with a running maximum (FlashAttention's recurrence).
 *
 * One row and key-value head: `group` queries (group, width) in float32, channels in the order of PLACE, against `length`
 * columns of keys and values, the first `shared` of which are read from where another row has the same ones. Eight
 * columns are scored at once; width is a multiple of 16. While it computes, the row after it is fetched: a row's strips
 * of the caches are too short for the processor to guess what comes next.
 */
static inline __attribute__((always_inline)) void NAME(attend)(
    const float *query, const T *own_keys, const T *own_values, const T *shared_keys, const T *shared_values,
    const T *next_keys, const T *next_values, T *out, i64 shared, i64 length, int group, int width, float scale)
{
    float sums[MAX_GROUP][MAX_WIDTH], weights[MAX_GROUP][BLOCK], highest[MAX_GROUP], total[MAX_GROUP];
    memset(sums, 0, sizeof(sums));
    for (int r = 0; r < group; r++) highest[r] = -__builtin_inff(), total[r] = 0;
    int count;
    for (i64 start = 0; start < length; start += count) {
        i64 end = start < shared ? shared : length;
        const T *keys = start < shared ? shared_keys : own_keys, *values = start < shared ? shared_values : own_values;
        count = end - start < BLOCK ? (int)(end - start) : BLOCK;
        for (int j = 0; j < count; j += 8) {
            FETCH(next_keys, start + j, 8);
            lanes products[MAX_GROUP][8];
            for (int i = 0; i < 8; i++) {
                /* Past the last column the last one is scored again; what comes of it is not used. */
                i64 column = start + (j + i < count ? j + i : count - 1);
                for (int r = 0; r < group; r++) products[r][i] = splat(0);
                for (int d = 0; d < width; d += 16) {
                    lanes low, high;
                    LOAD16(keys + column * width + d, &low, &high);
                    for (int r = 0; r < group; r++) {
                        const float *q = query + r * width + d;
                        products[r][i] += low * *(const lanes *)q + high * *(const lanes *)(q + 8);
                    }
                }
            }
            for (int r = 0; r < group; r++) *(lanes *)(weights[r] + j) = sum_each(products[r]) * splat(scale);
        }
        for (int r = 0; r < group; r++) {
            float peak = highest[r], sum = 0;
            for (int j = 0; j < count; j++) peak = weights[r][j] > peak ? weights[r][j] : peak;
            for (int j = 0; j < count; j++) {
                weights[r][j] = exp_f32(weights[r][j] - peak);
                sum += weights[r][j];
            }
            float kept = exp_f32(highest[r] - peak);
            total[r] = total[r] * kept + sum;
            highest[r] = peak;
            for (int d = 0; d < width; d++) sums[r][d] *= kept;
        }
        for (int first = 0; first < width; first += 32) {
            int parts = width - first < 32 ? 2 : 4;
            lanes sum[MAX_GROUP][4];
            for (int r = 0; r < group; r++)
                for (int d = 0; d < parts; d++) sum[r][d] = *(lanes *)(sums[r] + first + 8 * d);
            for (int j = 0; j < count; j++) {
                if (first == 0) FETCH(next_values, start + j, 1);
                for (int d = 0; d < parts; d += 2) {
                    lanes low, high;
                    LOAD16(values + (start + j) * width + first + 8 * d, &low, &high);
                    for (int r = 0; r < group; r++) {
                        sum[r][d] += splat(weights[r][j]) * low;
                        sum[r][d + 1] += splat(weights[r][j]) * high;
                    }
                }
            }
            for (int r = 0; r < group; r++)
                for (int d = 0; d < parts; d++) *(lanes *)(sums[r] + first + 8 * d) = sum[r][d];
        }
    }
    for (int r = 0; r < group; r++) {
        float scaled = 1.0f / total[r];
        for (int d = 0; d < width; d++) out[r * width + d] = STORE(sums[r][PLACE(d)] * scaled);
    }
}

#define ATTEND(group, width) \
    NAME(attend)(query, keys, values, shared_keys, shared_values, next_keys, next_values, out, shared, length, group, \
                 width, scale)

/* The same with the commonest sizes known to the compiler, which then keeps the sums in registers. */
static void NAME(attend_group)(
    const float *query, const T *keys, const T *values, const T *shared_keys, const T *shared_values, const T *next_keys,
    const T *next_values, T *out, i64 shared, i64 length, int group, int width, float scale)
{
    switch (width * 8 + group) {
    case 32 * 8 + 1: ATTEND(1, 32); break;
    case 32 * 8 + 2: ATTEND(2, 32); break;
    case 32 * 8 + 4: ATTEND(4, 32); break;
    case 64 * 8 + 4: ATTEND(4, 64); break;
    case 128 * 8 + 3: ATTEND(3, 128); break;
    case 128 * 8 + 4: ATTEND(4, 128); break;
    default: ATTEND(group, width);
    }
}

#undef ATTEND
#undef FETCH

/* Rotate the first 2 * half channels of a head, channel i with i + half. */
static inline void NAME(rotate)(const T *head, const float *cosines, const float *sines, float *out, int width, int half)
{
    for (int i = 0; i < half; i++) {
        float first = LOAD(head[i]), second = LOAD(head[half + i]);
        out[i] = first * cosines[i] - second * sines[i];
        out[half + i] = second * cosines[i] + first * sines[i];
    }
    for (int i = 2 * half; i < width; i++) out[i] = LOAD(head[i]);
}

/* projected (rows, (heads + 2 kv_heads) width) holds [q | k | v]; cosines and sines (rows, half); the new key and value
 * go to column positions[b] of slot b; out (rows, heads * width). Slots and heads of the caches are `slot_stride` and
 * `head_stride` elements apart. The first shared[b] columns of slot b are those of slot leaders[b] too, and are read from
 * there, so that the prompt of many samples stays in the processor's cache. */
void NAME(attention_step)(
    const T *projected, const float *cosines, const float *sines, T *keys, T *values, const i64 *positions,
    const i64 *leaders, const i64 *shared, T *out, i64 rows, i64 heads, i64 kv_heads, i64 width, i64 half, i64 slot_stride, i64 head_stride, float scale)
{
    i64 all = (heads + 2 * kv_heads) * width, group = heads / kv_heads;
#pragma omp parallel for if (rows * heads * width * positions[0] > SMALL)
    for (i64 task = 0; task < rows * kv_heads; task++) {
        i64 b = task / kv_heads, g = task % kv_heads, column = positions[b];
        const T *source = projected + b * all;
        const float *cosine = cosines + b * half, *sine = sines + b * half;
        T *key = keys + b * slot_stride + g * head_stride, *value = values + b * slot_stride + g * head_stride;
        const T *shared_key = keys + leaders[b] * slot_stride + g * head_stride;
        const T *shared_value = values + leaders[b] * slot_stride + g * head_stride;
        i64 following = task + 1 < rows * kv_heads ? task + 1 : task;
        i64 offset = following / kv_heads * slot_stride + following % kv_heads * head_stride;
        const T *next_key = keys + offset, *next_value = values + offset;
        float query[MAX_GROUP * MAX_WIDTH], turned[MAX_WIDTH];
        NAME(rotate)(source + (heads + g) * width, cosine, sine, turned, width, half);
        for (i64 d = 0; d < width; d++) key[column * width + d] = STORE(turned[d]);
        memcpy(value + column * width, source + (heads + kv_heads + g) * width, width * sizeof(T));
        for (i64 first = 0; first < group; first += MAX_GROUP) {
            int count = group - first < MAX_GROUP ? (int)(group - first) : MAX_GROUP;
            i64 head = g * group + first;
            for (int r = 0; r < count; r++) {
                NAME(rotate)(source + (head + r) * width, cosine, sine, turned, width, half);
                for (int d = 0; d < (int)width; d++) query[r * width + PLACE(d)] = turned[d];
            }
            T *target = out + (b * heads + head) * width;
            NAME(attend_group)(
                query, key, value, shared_key, shared_value, next_key, next_value, target, shared[b], column + 1, count,
                (int)width, scale);
        }
    }
}

/* h = exp(log_decay) h + scale x B^T, y = h C + D x: states (rows, heads, width, size) of T, all else float32; x (rows,
 * heads, width), scale and log_decay (rows, heads), B and C (rows, groups, size), y (rows, heads, width); rows of x, B
 * and C are `stride` elements apart. */
static inline __attribute__((always_inline)) void NAME(ssd_head)(
    T *restrict state, const float *x, float scale, float decay, const float *write, const float *read, float skip,
    float *restrict y, i64 width, int size)
{
    for (i64 p = 0; p < width; p++) {
        T *restrict row = state + p * size;
        float input = scale * x[p], sum = 0;
        for (int n = 0; n < size; n++) {
            float h = decay * LOAD(row[n]) + input * write[n];
            row[n] = STORE(h);
            sum += h * read[n];
        }
        y[p] = sum + skip * x[p];
    }
}

void NAME(ssd_step)(
    T *states, const float *x, const float *write, const float *read, i64 x_stride, i64 write_stride, i64 read_stride,
    const float *scale, const float *log_decay, const float *skip, float *y, i64 rows, i64 heads, i64 groups, i64 width,
    i64 size)
{
#pragma omp parallel for if (rows * heads * width * size > SMALL)
    for (i64 task = 0; task < rows * heads; task++) {
        i64 b = task / heads, head = task % heads, group = head / (heads / groups);
        T *state = states + task * width * size;
        const float *in = x + b * x_stride + head * width;
        const float *B = write + b * write_stride + group * size, *C = read + b * read_stride + group * size;
        float decay = exp_f32(log_decay[task]), factor = scale[task], *out = y + task * width;
        switch (size) {
        case 32: NAME(ssd_head)(state, in, factor, decay, B, C, skip[head], out, width, 32); break;
        case 64: NAME(ssd_head)(state, in, factor, decay, B, C, skip[head], out, width, 64); break;
        case 128: NAME(ssd_head)(state, in, factor, decay, B, C, skip[head], out, width, 128); break;
        default: NAME(ssd_head)(state, in, factor, decay, B, C, skip[head], out, width, (int)size);
        }
    }
}

/* h = exp(delta A) h + delta x B, y = <h, C> channel by channel: states (rows, channels, size) of T; x, delta and y
 * (rows, channels), A (channels, size), B and C (rows, groups, size) float32. */
static inline __attribute__((always_inline)) float NAME(channel)(
    T *restrict state, const float *rate, float delta, float input, const float *write, const float *read, int size)
{
    float sum = 0;
    for (int n = 0; n < size; n++) {
        float h = exp_f32(delta * rate[n]) * LOAD(state[n]) + input * write[n];
        state[n] = STORE(h);
        sum += h * read[n];
    }
    return sum;
}

void NAME(selective_step)(
    T *states, const float *x, const float *delta, const float *A, const float *write, const float *read, float *y,
    i64 rows, i64 channels, i64 groups, i64 size)
{
    i64 per_group = channels / groups;
#pragma omp parallel for if (rows * channels * size > SMALL)
    for (i64 task = 0; task < rows * groups; task++) {
        i64 b = task / groups, g = task % groups;
        const float *B = write + task * size, *C = read + task * size;
        for (i64 c = g * per_group; c < (g + 1) * per_group; c++) {
            i64 place = b * channels + c;
            float step = delta[place], input = step * x[place];
            T *state = states + place * size;
            y[place] = size == 16 ? NAME(channel)(state, A + c * 16, step, input, B, C, 16)
                                  : NAME(channel)(state, A + c * size, step, input, B, C, (int)size);
        }
    }
}

/* Shift each row's window (rows, 4, channels) by one, append x, and take the weighted sum over it: x (rows, channels)
 * with rows `x_stride` elements apart, taps (4, channels) and bias float32, out (rows, channels) float32. */
void NAME(conv_step)(
    T *windows, const T *x, i64 x_stride, const float *restrict taps, const float *restrict bias, float *out, i64 rows,
    i64 channels, i64 is_silu)
{
#pragma omp parallel for if (rows * channels > SMALL)
    for (i64 b = 0; b < rows; b++) {
        T *restrict w0 = windows + b * 4 * channels, *restrict w1 = w0 + channels;
        T *restrict w2 = w1 + channels, *restrict w3 = w2 + channels;
        const T *restrict in = x + b * x_stride;
        float *restrict y = out + b * channels;
        for (i64 c = 0; c < channels; c++) {
            T a0 = w1[c], a1 = w2[c], a2 = w3[c], a3 = in[c];
            y[c] = bias[c] + taps[c] * LOAD(a0) + taps[channels + c] * LOAD(a1) + taps[2 * channels + c] * LOAD(a2)
                 + taps[3 * channels + c] * LOAD(a3);
            w0[c] = a0, w1[c] = a1, w2[c] = a2, w3[c] = a3;
        }
        if (is_silu)
            for (i64 c = 0; c < channels; c++) y[c] *= sigmoid(y[c]);
    }
}

/* silu(gate) * up of (rows, 2 inner), rows [gate | up]; out (rows, inner). */
void NAME(gate)(const T *gate_up, T *out, i64 rows, i64 inner)
{
#pragma omp parallel for if (rows * inner > SMALL)
    for (i64 b = 0; b < rows; b++) {
        const T *gate = gate_up + b * 2 * inner, *up = gate + inner;
        for (i64 c = 0; c < inner; c++) {
            float g = LOAD(gate[c]);
            out[b * inner + c] = STORE(g * sigmoid(g) * LOAD(up[c]));
        }
    }
}

/* RMS norm of y * silu(z) over each of `groups` stretches of a row, times weight: y (rows, width) and weight float32, z
 * (rows, width) with rows `z_stride` elements apart, out (rows, width). */
void NAME(gated_norm)(
    const float *y, const T *z, i64 z_stride, const float *weight, T *out, i64 rows, i64 groups, i64 width, float eps)
{
    i64 size = width / groups;
#pragma omp parallel for if (rows * width > SMALL)
    for (i64 task = 0; task < rows * groups; task++) {
        i64 b = task / groups, first = task % groups * size;
        const float *restrict in = y + b * width + first, *restrict w = weight + first;
        const T *restrict gate = z + b * z_stride + first;
        T *restrict target = out + b * width + first;
        float squares = 0;
        for (i64 c = 0; c < size; c++) {
            float g = LOAD(gate[c]), value = in[c] * g * sigmoid(g);
            squares += value * value;
        }
        float scale = 1.0f / __builtin_sqrtf(squares / size + eps);
        for (i64 c = 0; c < size; c++) {
            float g = LOAD(gate[c]);
            target[c] = STORE(in[c] * g * sigmoid(g) * scale * w[c]);
        }
    }
}

/* RMS norm of rows of x (rows, width) times weight, both and out of T; as if weighted in float32. */
void NAME(rms_norm)(const T *x, const T *weight, T *out, i64 rows, i64 width, float eps)
{
#pragma omp parallel for if (rows * width > SMALL)
    for (i64 b = 0; b < rows; b++) {
        const T *restrict in = x + b * width;
        T *restrict target = out + b * width;
        float squares = 0;
        for (i64 c = 0; c < width; c++) squares += LOAD(in[c]) * LOAD(in[c]);
        float scale = 1.0f / __builtin_sqrtf(squares / width + eps);
        for (i64 c = 0; c < width; c++) target[c] = STORE(LOAD(in[c]) * scale * LOAD(weight[c]));
    }
}
