// y = x ⋆ weight + bias by strips of y, for a strip of permutations.txt.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "lib/forward.glsl"
#include "lib/strips_results.glsl"
