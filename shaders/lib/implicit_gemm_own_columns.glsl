// What an implicit GEMM loads and stores where each thread has columns for itself. Blocks run through all source channels
// of a tap before the next tap.

const uint PIXELS = THREAD_N;
bool pixel_exists[PIXELS];
uint pixel_plane[PIXELS]; // element (or vector) of the source's first channel of this group in the pixel's image
ivec2 pixel_source[PIXELS];
uvec2 next_tap; // of the block to be fetched
uint next_channel;

uint reduced_vectors() { return (reduced_channels + 3) / 4; }

void begin_fetching() {
    next_tap = uvec2(0);
    next_channel = 0;
    [[unroll]] for (uint j = 0; j < PIXELS; ++j) {
        Pixel pixel = pixel_of(first_n + result_n(j));
        pixel_exists[j] = pixel.exists;
        pixel_source[j] = first_source(pixel);
#ifdef ROWS_IN_LANES
        pixel_plane[j] = (pixel.image * pc.groups + group) * reduced_vectors() * source_plane;
#else
        pixel_plane[j] = (pixel.image * SOURCE_CHANNELS + group * reduced_channels) * source_plane;
#endif
    }
}

uint blocks() { return h_axis.taps * w_axis.taps * channel_blocks; }

void advance() {
    next_channel += BLOCK;
    bool tap_ends = next_channel >= reduced_channels;
    next_channel = tap_ends ? 0 : next_channel;
    next_tap.y += tap_ends ? 1 : 0;
    bool row_ends = next_tap.y == w_axis.taps;
    next_tap = row_ends ? uvec2(next_tap.x + 1, 0) : next_tap;
}

void fetch() {
    uint first_row = weight_row(next_tap.x, next_tap.y) + next_channel;
    bool hit[PIXELS];
    uint source_at[PIXELS];
    [[unroll]] for (uint j = 0; j < PIXELS; ++j) {
        ivec2 source = pixel_source[j] + ivec2(next_tap) * ivec2(h_axis.reach, w_axis.reach);
        hit[j] = in_source(source) && pixel_exists[j];
        source_at[j] = pixel_plane[j] + uint(source.x) * SOURCE_WIDTH + uint(source.y);
    }
#ifdef ROWS_IN_LANES
    [[unroll]] for (uint i = 0; i < BLOCK * A_VECTORS; ++i) {
        uint vector = first_m / 4 + a_vector(i);
        a_next[i] = vec4(0);
        if (next_channel + a_step(i) < reduced_channels && vector < m_vectors) {
            a_next[i] = floats(WEIGHT_VECTOR((first_row + a_step(i)) * m_vectors + vector));
        }
    }
    vec4 channels[BLOCK]; // vector by vector: four steps of each column
    [[unroll]] for (uint i = 0; i < BLOCK; ++i) {
        uint vector = next_channel / 4 + i / THREAD_N;
        channels[i] = vec4(0);
        if (hit[i % THREAD_N] && vector < reduced_vectors()) {
            channels[i] = floats(SOURCE_VECTOR(source_at[i % THREAD_N] + vector * source_plane));
        }
    }
    [[unroll]] for (uint step = 0; step < BLOCK; ++step) {
        uint i = step / 4 * THREAD_N;
        uint at = step % 4;
        b_next[step] = vec4(channels[i][at], channels[i + 1][at], channels[i + 2][at], channels[i + 3][at]);
    }
#else
    [[unroll]] for (uint i = 0; i < A_LOADS; ++i) {
        a_next[i] = 0;
        if (next_channel + a_row(i) < reduced_channels && first_m + a_m(i) < m_count) {
            a_next[i] = WEIGHT((first_row + a_row(i)) * m_vectors * 4 + first_m + a_m(i));
        }
    }
    [[unroll]] for (uint i = 0; i < BLOCK * THREAD_N; ++i) {
        uint channel = next_channel + i / THREAD_N;
        b_next[i] = 0;
        if (hit[i % THREAD_N] && channel < reduced_channels) {
            b_next[i] = SOURCE(source_at[i % THREAD_N] + channel * source_plane);
        }
    }
#endif
    advance();
}

void store() {
    uint plane = RESULT_HEIGHT * RESULT_WIDTH;
    bool exists[THREAD_N];
    uint at[THREAD_N];
    [[unroll]] for (uint column = 0; column < THREAD_N; ++column) {
        Pixel pixel = pixel_of(first_n + result_n(column));
        exists[column] = pixel.exists;
        at[column] = result_at(pixel, first_m);
    }
    EACH_RESULT(uint i = 0; i < RESULTS; ++i) {
        uint m = result_m(i / THREAD_N);
        if (exists[i % THREAD_N] && first_m + m < m_count) {
            store_result(at[i % THREAD_N] + m * plane, group * m_count + first_m + m, totals[i]);
        }
    }
}
