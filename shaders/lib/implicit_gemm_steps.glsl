// Blocks of an implicit GEMM with few source channels: a block takes BLOCK steps of all taps × channels, whichever taps
// they belong to. What a step reads is decoded once a workgroup, into a list in shared memory.

const bool BY_STEPS = LISTED_STEPS > 1;

struct Step {
    ivec2 reach; // rows and columns from a pixel's first source to this step's
    int offset;  // the same in elements, and from channel 0 to this step's
    int weights; // where they are; -1: there is no such step
};

shared ivec4 steps[LISTED_STEPS];
uint next_step; // of the block to be fetched

uint steps_in_all() { return h_axis.taps * w_axis.taps * reduced_channels; }

void list_steps() {
    for (uint i = gl_LocalInvocationIndex; i < LISTED_STEPS; i += THREADS) {
        steps[i] = ivec4(0, 0, 0, -1);
        if (i < steps_in_all()) {
            uint tap = i / reduced_channels;
            uint channel = i % reduced_channels;
            ivec2 reach = ivec2(tap / w_axis.taps, tap % w_axis.taps) * ivec2(h_axis.reach, w_axis.reach);
            int offset = reach.x * int(SOURCE_WIDTH) + reach.y + int(channel * source_plane);
            uint first = weights_at(tap / w_axis.taps, tap % w_axis.taps);
            steps[i] = ivec4(reach, offset, weights_at_channel(first, channel));
        }
    }
    barrier();
}

Step step_at(uint i) {
    ivec4 listed = steps[min(i, LISTED_STEPS - 1)];
    return Step(listed.xy, listed.z, listed.w);
}

void fetch_steps() {
    [[unroll]] for (uint i = 0; i < A_LOADS; ++i) {
        int at = step_at(next_step + a_row() + i * A_STEP).weights;
        a_next[i] = read_weights(uint(max(at, 0)));
        a_exists[i] = at >= 0;
    }
    [[unroll]] for (uint i = 0; i < B_LOADS; ++i) {
        uint j = i % PIXELS;
        Step step = step_at(next_step + b_row(i));
        bool hit = step.weights >= 0 && pixel_exists[j] && in_source(pixel_source[j] + step.reach);
        b_next[i] = SOURCE_AT(hit ? pixel_at[j] + step.offset : SOURCE_BASE);
        b_exists[i] = hit;
    }
    next_step += BLOCK;
}
