// How a result is written: with the bias of its channel, or added to what was there. A transposed convolution takes
// its forward pass from the input gradient and its input gradient from the forward pass, so both know both.

void store_result(uint at, uint channel, float value) {
    float result = pc.has_bias != 0 ? value + BIAS(channel) : value;
    RESULT(at) = (pc.flags & FLAG_ACCUMULATE) != 0 ? RESULT(at) + result : result;
}

#if SUBGROUP == 0 // where there is one, a Vector is no vec4, and no kernel stores vectors
// As store_result, for the elements 4·at to 4·at + 3 of one channel.
void store_result_vector(uint at, uint channel, vec4 values) {
    vec4 result = pc.has_bias != 0 ? values + BIAS(channel) : values;
    RESULT_VECTOR(at) = (pc.flags & FLAG_ACCUMULATE) != 0 ? RESULT_VECTOR(at) + result : result;
}
#endif
