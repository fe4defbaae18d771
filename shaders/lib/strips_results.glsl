// Forward and input gradient by strips: a thread's strip of one result channel, summed over the source channels of its
// group. That is for few result channels a group, because each of them reads the source again; and for few strips in all,
// of which each is summed by several threads of a workgroup, so that every thread's loads are under way at once.

#include "lib/strips.glsl"

layout(local_size_x = THREADS, local_size_y = 1, local_size_z = 1) in;

layout(constant_id = 2) const bool SEVERAL_SOURCES = false; // groups have several source channels
layout(constant_id = 3) const bool PACKED = false; // the weight comes as pack-weights.glsl has it, not raw

layout(constant_id = 4) const uint PARTS = 1; // threads that share a strip, each with source channels of its own
layout(constant_id = 5) const uint SHARED = 1; // ROWS * COLUMNS * PITCH, if there are parts

const uint CHAIN = 64 / TAPS; // source channels that are chained before they are added to the totals
const uint STRIPS = THREADS / PARTS; // of a workgroup
const uint PITCH = THREADS + 1; // spreads the parts of neighbouring results over the banks of shared memory

shared float parts[SHARED];

// A thread that has a strip for itself, of a single source channel, stores each row when its last line is summed, or all
// of them at the end of an input gradient with a stride.
const bool BY_VECTORS = (VECTORS & RESULT_VECTORS) != 0;
const bool AT_ONCE = !SEVERAL_SOURCES && PARTS == 1 && BY_VECTORS;

vec4 four_of(float row[COLUMNS], int column) {
    return vec4(row[column], row[column + 1], row[column + 2], row[column + 3]);
}

// Where a thread's weights for source channel 0 of its group lie, and how far apart those of neighbouring taps and
// channels.
struct Weights {
    uint first, tap_step, source_step;
};

Weights weights_of(uint group, uint channel, uint sources) {
    uint m_count = RESULT_CHANNELS / pc.groups;
    if (PACKED) {
        uint row = (m_count + 3) / 4 * 4;
        return Weights(group * TAPS * sources * row + channel % m_count, sources * row, row);
    }
#ifdef BACKWARD_INPUT
    return Weights((group * sources * m_count + channel % m_count) * TAPS, 1, m_count * TAPS);
#else
    return Weights(channel * sources * TAPS, 1, TAPS);
#endif
}

// Four neighbouring results of the strip's row i, from that column of it, as a vector.
void store_vector(Strip strip, int i, int column, vec4 four) {
    uint at = (strip.plane * RESULT_HEIGHT + strip.row + i) * RESULT_WIDTH + strip.column + column;
    bool inside = strip.row + i < RESULT_HEIGHT && strip.column + column < RESULT_WIDTH;
    if (inside) {
        store_sum_vector(at / 4, four);
    }
}

// The same, element by element where rows are no whole vectors.
void store_four(Strip strip, int i, int column, vec4 four) {
    if (BY_VECTORS) {
        store_vector(strip, i, column, four);
        return;
    }
    uint at = (strip.plane * RESULT_HEIGHT + strip.row + i) * RESULT_WIDTH + strip.column + column;
    if (strip.row + i >= RESULT_HEIGHT) {
        return;
    }
    [[unroll]] for (int next = 0; next < 4; ++next) {
        if (strip.column + column + next < RESULT_WIDTH) {
            store_sum(at + next, four[next]);
        }
    }
}

void main() {
    uint tile = tile_index();
    uint part = gl_LocalInvocationIndex / STRIPS;
    Strip strip = strip_at(tile * STRIPS + gl_LocalInvocationIndex % STRIPS);
    bool exists = tile < pc.tile_end && strip.plane < pc.N * RESULT_CHANNELS;
    if (PARTS == 1 && !exists) {
        return;
    }
    uint channel = strip.plane % RESULT_CHANNELS;
    uint group = channel / (RESULT_CHANNELS / pc.groups);
    uint sources = SEVERAL_SOURCES ? SOURCE_CHANNELS / pc.groups : 1;
    if (PARTS > 1 && !exists) {
        sources = 0;
    }
    uint source_plane = strip.plane / RESULT_CHANNELS * SOURCE_CHANNELS + group * sources;
    Weights weights = weights_of(group, channel, sources);
    float bias = exists ? bias_of(channel) : 0;
    int first_line = FIRST_LINE(strip.row);
    float totals[ROWS][COLUMNS];
    [[unroll]] for (int i = 0; i < ROWS; ++i) {
        [[unroll]] for (int column = 0; column < COLUMNS; ++column) {
            totals[i][column] = 0;
        }
    }
    for (uint first = part; first < sources; first += CHAIN * PARTS) {
        float sums[ROWS][COLUMNS];
        [[unroll]] for (int i = 0; i < ROWS; ++i) {
            [[unroll]] for (int column = 0; column < COLUMNS; ++column) {
                sums[i][column] = 0;
            }
        }
        for (uint source = first; source < min(first + CHAIN * PARTS, sources); source += PARTS) {
            float weight[TAPS];
            [[unroll]] for (int tap = 0; tap < TAPS; ++tap) {
                weight[tap] = WEIGHT(weights.first + source * weights.source_step + tap * weights.tap_step);
            }
            Place place = window_place(source_plane + source, first_line, strip.column);
            [[unroll]] for (int j = 0; j < LINES; ++j) {
                float window[WINDOW];
                read_window(place, first_line + j, strip.column, window);
                place = moved(place, int(SOURCE_WIDTH));
                [[unroll]] for (int i = 0; i < ROWS; ++i) {
                    [[unroll]] for (int s = 0; s < KERNEL_S; ++s) {
                        [[unroll]] for (int column = 0; column < COLUMNS; ++column) {
                            if (READS(i, j, column, s)) {
                                int tap = KERNEL_ROW(i, j) * KERNEL_S + s;
                                sums[i][column] = fma(weight[tap], window[WINDOW_COLUMN(column, s)], sums[i][column]);
                            }
                        }
                    }
                }
                // While later rows are summed, what is done is under way.
                [[unroll]] for (int i = 0; i < ROWS; ++i) {
                    [[unroll]] for (int column = 0; column < COLUMNS; column += 4) {
                        if (AT_ONCE && j == LAST_LINE(i)) {
                            store_vector(strip, i, column, four_of(sums[i], column) + bias);
                        }
                    }
                }
            }
        }
        [[unroll]] for (int i = 0; i < ROWS; ++i) {
            [[unroll]] for (int column = 0; column < COLUMNS; ++column) {
                totals[i][column] += sums[i][column];
            }
        }
    }
    if (PARTS == 1 && !AT_ONCE) {
        [[unroll]] for (int i = 0; i < ROWS; ++i) {
            [[unroll]] for (int column = 0; column < COLUMNS; column += 4) {
                store_four(strip, i, column, four_of(totals[i], column) + bias);
            }
        }
    }
    if (PARTS == 1) {
        return;
    }
    [[unroll]] for (int i = 0; i < ROWS; ++i) {
        [[unroll]] for (int column = 0; column < COLUMNS; ++column) {
            parts[(i * COLUMNS + column) * PITCH + gl_LocalInvocationIndex] = totals[i][column];
        }
    }
    barrier();
    for (uint at = 4 * part; exists && at < ROWS * COLUMNS; at += 4 * PARTS) {
        vec4 four = vec4(0);
        for (uint of = gl_LocalInvocationIndex % STRIPS; of < THREADS; of += STRIPS) {
            uint first = at * PITCH + of;
            four += vec4(parts[first], parts[first + PITCH], parts[first + 2 * PITCH], parts[first + 3 * PITCH]);
        }
        store_four(strip, int(at / COLUMNS), int(at % COLUMNS), four + bias);
    }
}
