// How a result is written: with the bias of its channel, or added to what was there. A transposed convolution takes
// its forward pass from the input gradient and its input gradient from the forward pass, so both know both.

void store_result(uint at, uint channel, float value) {
    float result = pc.has_bias != 0 ? value + BIAS(channel) : value;
    RESULT(at) = (pc.flags & FLAG_ACCUMULATE) != 0 ? RESULT(at) + result : result;
}
