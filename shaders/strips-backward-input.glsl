// dx = the transposed convolution of dy where every group has one input and one output channel, for a window of
// permutations.txt.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "lib/backward-input.glsl"
#include "lib/depthwise-strips.glsl"
