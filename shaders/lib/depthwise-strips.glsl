// Forward and input gradient by strips; an input gradient for as many output channels as input channels.
// A depthwise weight is read raw: its one input channel makes [K][1][R][S] the packed order too.

#include "lib/strips.glsl"

#include "lib/elements.glsl"

void main() {
    uint index = element_index();
    Strip strip = strip_at(index);
    if (index == NO_ELEMENT || strip.plane >= pc.N * RESULT_CHANNELS) {
        return;
    }
    uint channel = strip.plane % RESULT_CHANNELS;
#ifdef BACKWARD_INPUT
    uint source_plane = strip.plane;
#else
    uint source_plane = strip.plane / (pc.K / pc.C);
#endif
    float weight[TAPS];
    [[unroll]] for (int tap = 0; tap < TAPS; ++tap) {
        weight[tap] = WEIGHT(channel * TAPS + tap);
    }
    float sums[ROWS][COLUMNS];
    [[unroll]] for (int i = 0; i < ROWS; ++i) {
        [[unroll]] for (int column = 0; column < COLUMNS; ++column) {
            sums[i][column] = 0;
        }
    }
    [[unroll]] for (int j = 0; j < LINES; ++j) {
        float window[WINDOW];
        read_window(source_plane, FIRST_LINE(strip.row) + j, strip.column, window);
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
    uint at = (strip.plane * RESULT_HEIGHT + strip.row) * RESULT_WIDTH + strip.column;
    if ((VECTORS & RESULT_VECTORS) != 0) {
        [[unroll]] for (int i = 0; i < ROWS; ++i) {
            [[unroll]] for (int column = 0; column < COLUMNS; column += 4) {
                if (strip.row + i < RESULT_HEIGHT && strip.column + column < RESULT_WIDTH) {
                    vec4 four = vec4(sums[i][column], sums[i][column + 1], sums[i][column + 2], sums[i][column + 3]);
                    store_result_vector((at + i * RESULT_WIDTH + column) / 4, channel, four);
                }
            }
        }
    } else {
        [[unroll]] for (int i = 0; i < ROWS; ++i) {
            [[unroll]] for (int column = 0; column < COLUMNS; ++column) {
                if (strip.row + i < RESULT_HEIGHT && strip.column + column < RESULT_WIDTH) {
                    store_result(at + i * RESULT_WIDTH + column, channel, sums[i][column]);
                }
            }
        }
    }
}
