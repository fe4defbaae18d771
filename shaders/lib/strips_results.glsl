// Forward and input gradient by strips: a thread's strip of one result channel, summed over the source channels of its
// group. That is for few result channels a group, because each of them reads the source again.

#include "lib/strips.glsl"

#include "lib/elements.glsl"

layout(constant_id = 2) const bool SEVERAL_SOURCES = false; // groups have several source channels
layout(constant_id = 3) const bool PACKED = false; // the weight comes as pack-weights.glsl has it, not raw

const uint CHAIN = 64 / TAPS; // source channels that are chained before they are added to the totals

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

void main() {
    uint index = element_index();
    Strip strip = strip_at(index);
    if (index == NO_ELEMENT || strip.plane >= pc.N * RESULT_CHANNELS) {
        return;
    }
    uint channel = strip.plane % RESULT_CHANNELS;
    uint group = channel / (RESULT_CHANNELS / pc.groups);
    uint sources = SEVERAL_SOURCES ? SOURCE_CHANNELS / pc.groups : 1;
    uint source_plane = strip.plane / RESULT_CHANNELS * SOURCE_CHANNELS + group * sources;
    Weights weights = weights_of(group, channel, sources);
    float totals[ROWS][COLUMNS];
    [[unroll]] for (int i = 0; i < ROWS; ++i) {
        [[unroll]] for (int column = 0; column < COLUMNS; ++column) {
            totals[i][column] = 0;
        }
    }
    for (uint first = 0; first < sources; first += CHAIN) {
        float sums[ROWS][COLUMNS];
        [[unroll]] for (int i = 0; i < ROWS; ++i) {
            [[unroll]] for (int column = 0; column < COLUMNS; ++column) {
                sums[i][column] = 0;
            }
        }
        for (uint source = first; source < min(first + CHAIN, sources); ++source) {
            float weight[TAPS];
            [[unroll]] for (int tap = 0; tap < TAPS; ++tap) {
                weight[tap] = WEIGHT(weights.first + source * weights.source_step + tap * weights.tap_step);
            }
            [[unroll]] for (int j = 0; j < LINES; ++j) {
                float window[WINDOW];
                read_window(source_plane + source, FIRST_LINE(strip.row) + j, strip.column, window);
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
            }
        }
        [[unroll]] for (int i = 0; i < ROWS; ++i) {
            [[unroll]] for (int column = 0; column < COLUMNS; ++column) {
                totals[i][column] += sums[i][column];
            }
        }
    }
    uint at = (strip.plane * RESULT_HEIGHT + strip.row) * RESULT_WIDTH + strip.column;
    if ((VECTORS & RESULT_VECTORS) != 0) {
        [[unroll]] for (int i = 0; i < ROWS; ++i) {
            [[unroll]] for (int column = 0; column < COLUMNS; column += 4) {
                if (strip.row + i < RESULT_HEIGHT && strip.column + column < RESULT_WIDTH) {
                    vec4 four = vec4(totals[i][column], totals[i][column + 1], totals[i][column + 2], totals[i][column + 3]);
                    store_result_vector((at + i * RESULT_WIDTH + column) / 4, channel, four);
                }
            }
        }
    } else {
        [[unroll]] for (int i = 0; i < ROWS; ++i) {
            [[unroll]] for (int column = 0; column < COLUMNS; ++column) {
                if (strip.row + i < RESULT_HEIGHT && strip.column + column < RESULT_WIDTH) {
                    store_result(at + i * RESULT_WIDTH + column, channel, totals[i][column]);
                }
            }
        }
    }
}
