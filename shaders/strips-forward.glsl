// y = x ⋆ weight + bias where every group has one input channel, for a window of permutations.txt.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "lib/forward.glsl"
#include "lib/depthwise-strips.glsl"
