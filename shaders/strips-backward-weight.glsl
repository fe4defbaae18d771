// dweight (and dbias) where a group has few input channels, for a window of permutations.txt: a workgroup sums the strips
// of one output channel and one input channel that belong to one split, each thread a stride of them. Splits are summed
// by reduce-splits.glsl.
#version 450
#extension GL_GOOGLE_include_directive : require

#define INPUT_ACCESS readonly
#define INPUT_VECTORS readonly
#define WEIGHT_ACCESS
#define BIAS_ACCESS
#define OUTPUT_ACCESS readonly
#define OUTPUT_VECTORS readonly
#include "lib/problem.glsl"

#define SOURCE_PLACE(i) INPUT_PLACE(i)
#define SOURCE_FROM(place, i) INPUT_FROM(place, i)
#define SOURCE_VECTOR_FROM(place, i) INPUT_VECTOR_FROM(place, i)
#define SOURCE_VECTORS VECTORS_INPUT
#define RESULT_VECTORS VECTORS_OUTPUT
#define SOURCE_HEIGHT pc.H
#define SOURCE_WIDTH pc.W
#define RESULT_HEIGHT pc.P
#define RESULT_WIDTH pc.Q
#include "lib/strips.glsl"

#define SPLIT_STRIPS pc.extra_0 // strips of one channel that one split sums

layout(local_size_x = SUMMERS, local_size_y = 1, local_size_z = 1) in;

const int RESULTS = TAPS + 1;   // and one for the bias
const int PARTS = 8;            // parts of a workgroup's threads, summed side by side
const int PITCH = SUMMERS + PARTS; // spreads the sums of neighbouring results over the banks of shared memory

shared float of_threads[RESULTS * PITCH];
shared float of_parts[RESULTS * PARTS];

// Whether the strip's pixel is one of dy. Vectors do not reach beyond a row.
bool exists(Strip strip, int i, int column) {
    bool in_row = (VECTORS & RESULT_VECTORS) != 0 || strip.column + column < RESULT_WIDTH;
    return in_row && strip.row + i < RESULT_HEIGHT;
}

// A strip of dy; zeros outside of the plane.
void read_gradients(uint plane, Strip strip, out float gradients[ROWS][COLUMNS]) {
    uint at = (plane * RESULT_HEIGHT + strip.row) * RESULT_WIDTH + strip.column;
    if ((VECTORS & RESULT_VECTORS) != 0) {
        [[unroll]] for (int i = 0; i < ROWS; ++i) {
            vec4 read = vec4(0);
            if (strip.row + i < RESULT_HEIGHT) {
                read = OUTPUT_VECTOR((at + i * RESULT_WIDTH) / 4);
            }
            gradients[i][0] = read.x;
            gradients[i][1] = read.y;
            gradients[i][2] = read.z;
            gradients[i][3] = read.w;
        }
    } else {
        [[unroll]] for (int i = 0; i < ROWS; ++i) {
            [[unroll]] for (int column = 0; column < COLUMNS; ++column) {
                gradients[i][column] = 0;
                if (exists(strip, i, column)) {
                    gradients[i][column] = OUTPUT(at + i * RESULT_WIDTH + column);
                }
            }
        }
    }
}

void main() {
    uint tile = tile_index();
    if (tile >= pc.tile_end) {
        return;
    }
    uint c_count = pc.C / pc.groups;
    uint k = tile / c_count % pc.K;
    uint split = tile / c_count / pc.K;
    uint own_c = tile % c_count; // of the group's
    uint c = k / (pc.K / pc.groups) * c_count + own_c;
    uint strips = strips_across() * strips_down();
    uint end = min((split + 1) * SPLIT_STRIPS, strips * pc.N);

    float totals[RESULTS];
    [[unroll]] for (int t = 0; t < RESULTS; ++t) {
        totals[t] = 0;
    }
    for (uint at = split * SPLIT_STRIPS + gl_LocalInvocationIndex; at < end; at += SUMMERS) {
        Strip strip = strip_at(at);
        // No more than 64 products a sum.
        float sums[RESULTS];
        [[unroll]] for (int t = 0; t < RESULTS; ++t) {
            sums[t] = 0;
        }
        float gradients[ROWS][COLUMNS];
        read_gradients(strip.plane * pc.K + k, strip, gradients);
        [[unroll]] for (int i = 0; i < ROWS; ++i) {
            sums[TAPS] += (gradients[i][0] + gradients[i][1]) + (gradients[i][2] + gradients[i][3]);
        }
        int line = FIRST_LINE(strip.row);
        Place place = window_place(strip.plane * pc.C + c, line, strip.column);
        [[unroll]] for (int j = 0; j < LINES; ++j) {
            float window[WINDOW];
            read_window(place, line + j, strip.column, window);
            place = moved(place, int(SOURCE_WIDTH));
            [[unroll]] for (int i = 0; i < ROWS; ++i) {
                [[unroll]] for (int s = 0; s < KERNEL_S; ++s) {
                    [[unroll]] for (int column = 0; column < COLUMNS; ++column) {
                        if (READS(i, j, column, s)) {
                            // What lies beyond dy adds nothing, not even zero times infinity.
                            int tap = KERNEL_ROW(i, j) * KERNEL_S + s;
                            float sum = fma(gradients[i][column], window[WINDOW_COLUMN(column, s)], sums[tap]);
                            sums[tap] = mix(sums[tap], sum, exists(strip, i, column));
                        }
                    }
                }
            }
        }
        [[unroll]] for (int t = 0; t < RESULTS; ++t) {
            totals[t] += sums[t];
        }
    }

    [[unroll]] for (int t = 0; t < RESULTS; ++t) {
        of_threads[t * PITCH + gl_LocalInvocationIndex] = totals[t];
    }
    barrier();
    for (uint each = gl_LocalInvocationIndex; each < RESULTS * PARTS; each += SUMMERS) {
        uint first = each / PARTS * PITCH + each % PARTS;
        float sum = 0;
        [[unroll]] for (int i = 0; i < SUMMERS / PARTS; ++i) {
            sum += of_threads[first + i * PARTS];
        }
        of_parts[each] = sum;
    }
    barrier();
    uint t = gl_LocalInvocationIndex;
    if (t < RESULTS) {
        float sum = 0;
        [[unroll]] for (int part = 0; part < PARTS; ++part) {
            sum += of_parts[t * PARTS + part];
        }
        uint channel = split * pc.K + k;
        if (t < TAPS) {
            WEIGHT((channel * c_count + own_c) * TAPS + t) = sum;
        } else if (pc.has_bias != 0 && own_c == 0) {
            BIAS(channel) = sum;
        }
    }
}
