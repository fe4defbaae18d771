// out[i] = op(a[i], alpha · b[i]) for a run of elements, RUN of them a thread. Binding 0 holds a, binding 1 b, binding
// 3 the result. An operand may also be the scalar alpha, a smaller array that is broadcast, or the result itself.
//
// Every operation is rounded by itself, and comparisons look at bits: neither a compiler's liberties nor a device that
// takes subnormals for zeros change what is chosen.
#version 450
#extension GL_GOOGLE_include_directive : require

#define INPUT_ACCESS readonly
#define WEIGHT_ACCESS readonly
#define OUTPUT_ACCESS
#include "lib/problem.glsl"
#include "lib/elements.glsl"

layout(constant_id = 0) const uint OP = 0;
const uint COPY = 0, ADD = 1, SUBTRACT = 2, MULTIPLY = 3, DIVIDE = 4, MAXIMUM = 5, MINIMUM = 6, RELU_BACKWARD = 7;

layout(constant_id = 1) const uint A_SOURCE = 0;
layout(constant_id = 2) const uint B_SOURCE = 0;
const uint SCALAR = 0, ELEMENT = 1, BROADCAST = 2, RESULT = 3;

// The words of the problem's 17 sizes that are used, and for what.
#define SHAPE uvec4(pc.N, pc.C, pc.H, pc.W)
#define A_STRIDES uvec4(pc.K, pc.P, pc.Q, pc.R)
#define B_STRIDES uvec4(pc.S, pc.stride_h, pc.stride_w, pc.padding_h)
#define FIRST pc.padding_w // of the run, counted in the whole result
#define ELEMENTS pc.extra_0
#define ALPHA uintBitsToFloat(pc.extra_1)

uint broadcast_index(uint element, uvec4 strides) {
    uint w = element % SHAPE.w;
    element /= SHAPE.w;
    uint h = element % SHAPE.z;
    element /= SHAPE.z;
    uint c = element % SHAPE.y;
    uvec4 steps = uvec4(element / SHAPE.y, c, h, w) * strides;
    return steps.x + steps.y + steps.z + steps.w;
}

#define OPERAND(TENSOR, SOURCE, STRIDES)                                                \
    (SOURCE == ELEMENT     ? TENSOR(element)                                            \
     : SOURCE == BROADCAST ? TENSOR(broadcast_index(FIRST + element, STRIDES))          \
     : SOURCE == RESULT    ? OUTPUT(element)                                            \
                           : ALPHA)

bool is_nan(float value) {
    return (floatBitsToUint(value) & 0x7FFFFFFFu) > 0x7F800000u;
}

// An integer that is ordered as the values are, -0 below +0.
int order(float value) {
    int bits = floatBitsToInt(value);
    return bits ^ int(uint(bits >> 31) >> 1);
}

float combine(float a, float b) {
    precise float result = a;
    switch (OP) {
    case ADD:
        result = a + b;
        break;
    case SUBTRACT:
        result = a - b;
        break;
    case MULTIPLY:
        result = a * b;
        break;
    case DIVIDE:
        result = a / b;
        break;
    case MAXIMUM:
        result = is_nan(a) || (!is_nan(b) && order(a) >= order(b)) ? a : b;
        break;
    case MINIMUM:
        result = is_nan(a) || (!is_nan(b) && order(a) <= order(b)) ? a : b;
        break;
    case RELU_BACKWARD:
        result = is_nan(b) || order(b) > 0 ? a : 0;
        break;
    }
    return result;
}

void main() {
    uint tile = tile_index();
    if (tile >= pc.tile_end) {
        return;
    }
    uint first = tile * THREADS * RUN + gl_LocalInvocationIndex;
    [[unroll]] for (uint i = 0; i < RUN; ++i) {
        uint element = first + i * THREADS;
        if (element < ELEMENTS) {
            float a = OPERAND(INPUT, A_SOURCE, A_STRIDES);
            float b = OPERAND(WEIGHT, B_SOURCE, B_STRIDES);
            if (A_SOURCE != SCALAR && B_SOURCE != SCALAR && ALPHA != 1) {
                precise float scaled = ALPHA * b;
                b = scaled;
            }
            OUTPUT(element) = combine(a, b);
        }
    }
}
