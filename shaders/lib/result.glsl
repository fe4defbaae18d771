// How a result is written: with the bias of its channel, or added to what was there. A transposed convolution takes
// its forward pass from the input gradient and its input gradient from the forward pass, so both know both.

float bias_of(uint channel) {
    return pc.has_bias != 0 ? BIAS(channel) : 0;
}

void store_sum(uint at, float sum) {
    RESULT(at) = (pc.flags & FLAG_ACCUMULATE) != 0 ? RESULT(at) + sum : sum;
}

void store_result(uint at, uint channel, float value) {
    store_sum(at, pc.has_bias != 0 ? value + BIAS(channel) : value);
}

#if SUBGROUP == 0 // where there is one, a Vector is no vec4, and no kernel stores vectors
// As these, for the elements 4·at to 4·at + 3 of one channel.
void store_sum_vector(uint at, vec4 sum) {
    RESULT_VECTOR(at) = (pc.flags & FLAG_ACCUMULATE) != 0 ? RESULT_VECTOR(at) + sum : sum;
}

void store_result_vector(uint at, uint channel, vec4 values) {
    store_sum_vector(at, pc.has_bias != 0 ? values + BIAS(channel) : values);
}
#endif
