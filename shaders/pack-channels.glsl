// A tensor [N][channels][pixels] to [N][group][channels of the group / 4][pixels][4], so that one load brings four
// channels of a pixel; zeros fill a group's last vector. Binding 0 is the tensor, binding 3 the packed one.
#version 450
#extension GL_GOOGLE_include_directive : require

#define INPUT_ACCESS readonly
#define OUTPUT_VECTORS writeonly
#include "lib/problem.glsl"
#include "lib/elements.glsl"

#define OF_OUTPUT (pc.extra_0 != 0) // the tensor has the shape of the convolution's output

void main() {
    uint element = element_index();
    uint pixels = OF_OUTPUT ? pc.P * pc.Q : pc.H * pc.W;
    uint channels = (OF_OUTPUT ? pc.K : pc.C) / pc.groups; // of a group
    uint vectors = (channels + 3) / 4;
    uint pixel = element % pixels;
    uint first = element / pixels % vectors * 4;
    uint group = element / pixels / vectors; // of all images
    if (element == NO_ELEMENT || group >= pc.N * pc.groups) {
        return;
    }
    vec4 packed = vec4(0);
    [[unroll]] for (uint i = 0; i < 4; ++i) {
        if (first + i < channels) {
            packed[i] = INPUT((group * channels + first + i) * pixels + pixel);
        }
    }
    OUTPUT_VECTOR(element) = packed;
}
