// How a result is written: with the bias of its channel, or added to what was there. A transposed convolution takes
// its forward pass from the input gradient and its input gradient from the forward pass, so both know both.

// Without the bias.
void put_result(uint at, float result) {
    RESULT(at) = (pc.flags & FLAG_ACCUMULATE) != 0 ? RESULT(at) + result : result;
}

void store_result(uint at, uint channel, float value) {
    put_result(at, pc.has_bias != 0 ? value + BIAS(channel) : value);
}

#if SUBGROUP == 0 // where there is one, a Vector is no vec4, and no kernel stores vectors
// The same for the elements 4·at to 4·at + 3 of one channel.
void put_result_vector(uint at, vec4 result) {
    RESULT_VECTOR(at) = (pc.flags & FLAG_ACCUMULATE) != 0 ? RESULT_VECTOR(at) + result : result;
}

void store_result_vector(uint at, uint channel, vec4 values) {
    put_result_vector(at, pc.has_bias != 0 ? values + BIAS(channel) : values);
}
#endif
