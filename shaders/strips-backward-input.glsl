// dx = the transposed convolution of dy by strips of dx, for a strip of permutations.txt.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "lib/backward-input.glsl"
#include "lib/strips_results.glsl"
