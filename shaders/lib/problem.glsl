// The interface that every kernel shares: push constants and the four tensors.
//
// Push constants begin with the 17 sizes of the problem, in the order N C H W K P Q R S, strides, begin
// paddings, dilations, groups, has_bias. Tensors sit at binding 0 (input), 1 (weight), 2 (bias) and
// 3 (output), or their gradients in the same places. A kernel that has one of them defines its access
// qualifier before including this file, for example `#define INPUT_ACCESS readonly`; an empty definition
// means read and write. One that is packed by fours is reached by whole vectors too, with `#define INPUT_VECTORS
// readonly`.
//
// With BUFFER_ADDRESSES the tensors are 64-bit addresses in the push constants, so that one tensor may be
// larger than maxStorageBufferRange, and because GPUs compare every access through a binding with its range.

#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_shuffle : require
#ifdef BUFFER_ADDRESSES
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#endif
#if SUBGROUP > 0
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#endif

// Four elements in memory; `floats` makes them a vec4. A software driver, which SUBGROUP tells of, loads the lanes'
// elements one by one, so there it loads two floats as one.
#if SUBGROUP > 0
#define Vector u64vec2
vec4 floats(Vector pairs) {
    return vec4(uintBitsToFloat(unpackUint2x32(pairs.x)), uintBitsToFloat(unpackUint2x32(pairs.y)));
}
#else
#define Vector vec4
#define floats(vector) vector
#endif

#ifdef BUFFER_ADDRESSES
layout(buffer_reference, std430, buffer_reference_align = 4) buffer Floats {
    float values[];
};
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Vectors {
    Vector values[];
};
// Of a tensor that a kernel only reads: its loads need not wait for stores.
layout(buffer_reference, std430, buffer_reference_align = 4) readonly restrict buffer ConstantFloats {
    float values[];
};
layout(buffer_reference, std430, buffer_reference_align = 16) readonly restrict buffer ConstantVectors {
    Vector values[];
};
#endif

layout(push_constant) uniform Push {
    uint N, C, H, W, K, P, Q, R, S;
    uint stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w, groups, has_bias;
    uint tile_begin, tile_end; // this dispatch's share of the kernel's tiles
    uint flags;                // FLAG_*
    uint extra_0, extra_1;     // each kernel says what they are to it
#ifdef BUFFER_ADDRESSES
    layout(offset = 96) Floats input_at;
    Floats weight_at, bias_at, output_at;
#else
    layout(offset = 96) uint input_base; // elements between the bound range's start and the tensor
    uint weight_base, bias_base, output_base;
#endif
} pc;

const uint FLAG_ACCUMULATE = 1u; // add to what the result held
const uint SPLITS_UNIT = 256u; // the flags' higher bits are a number: how often a result's sum is split

// INPUT_AT(INPUT_BASE + i) is INPUT(i), for those who add the base once.
#ifdef BUFFER_ADDRESSES
#define INPUT_BASE 0
#define OUTPUT_BASE 0
#define INPUT_AT(i) INPUT(i)
#define OUTPUT_AT(i) OUTPUT(i)
#define INPUT(i) pc.input_at.values[i]
#define INPUT_VECTOR(i) Vectors(pc.input_at).values[i] // elements 4i to 4i + 3
#define WEIGHT(i) pc.weight_at.values[i]
#define WEIGHT_VECTOR(i) Vectors(pc.weight_at).values[i]
#define WEIGHT_HAS_VECTORS (uvec2(pc.weight_at).x % 16 == 0)
#define BIAS(i) pc.bias_at.values[i]
#define OUTPUT(i) pc.output_at.values[i]
#define OUTPUT_VECTOR(i) Vectors(pc.output_at).values[i]
#else
#define INPUT_BASE pc.input_base
#define OUTPUT_BASE pc.output_base
#define INPUT_AT(i) input_tensor.values[i]
#define OUTPUT_AT(i) output_tensor.values[i]
#define INPUT(i) INPUT_AT(pc.input_base + (i))
#define INPUT_VECTOR(i) input_vectors.values[pc.input_base / 4 + (i)]
#define WEIGHT(i) weight_tensor.values[pc.weight_base + (i)]
#define WEIGHT_VECTOR(i) weight_vectors.values[pc.weight_base / 4 + (i)]
#define WEIGHT_HAS_VECTORS (pc.weight_base % 4 == 0)
#define BIAS(i) bias_tensor.values[pc.bias_base + (i)]
#define OUTPUT(i) OUTPUT_AT(pc.output_base + (i))
#define OUTPUT_VECTOR(i) output_vectors.values[pc.output_base / 4 + (i)]
#ifdef INPUT_ACCESS
layout(binding = 0, std430) INPUT_ACCESS restrict buffer Input { float values[]; } input_tensor;
#endif
#ifdef INPUT_VECTORS
layout(binding = 0, std430) INPUT_VECTORS restrict buffer InputVectors { Vector values[]; } input_vectors;
#endif
#ifdef WEIGHT_ACCESS
layout(binding = 1, std430) WEIGHT_ACCESS restrict buffer Weight { float values[]; } weight_tensor;
#endif
#ifdef WEIGHT_VECTORS
layout(binding = 1, std430) WEIGHT_VECTORS restrict buffer WeightVectors { Vector values[]; } weight_vectors;
#endif
#ifdef BIAS_ACCESS
layout(binding = 2, std430) BIAS_ACCESS restrict buffer Bias { float values[]; } bias_tensor;
#endif
#ifdef OUTPUT_ACCESS
layout(binding = 3, std430) OUTPUT_ACCESS restrict buffer Output { float values[]; } output_tensor;
#endif
#ifdef OUTPUT_VECTORS
layout(binding = 3, std430) OUTPUT_VECTORS restrict buffer OutputVectors { Vector values[]; } output_vectors;
#endif
#endif

// A Place is where an element of a tensor lies; others are reached from it. Through addresses, a constant distance costs
// nothing: it is part of the instruction.
#ifdef BUFFER_ADDRESSES
#define Place uvec2
Place moved(Place place, int elements) {
    uint carry;
    uint low = uaddCarry(place.x, uint(elements) << 2, carry);
    return Place(low, place.y + uint(elements >> 30) + carry);
}
#define INPUT_PLACE(i) moved(Place(pc.input_at), i)
#define INPUT_FROM(place, i) ConstantFloats(place).values[i]
#define INPUT_VECTOR_FROM(place, i) ConstantVectors(place).values[i] // the i-th from the place's own
#define OUTPUT_PLACE(i) moved(Place(pc.output_at), i)
#define OUTPUT_FROM(place, i) ConstantFloats(place).values[i]
#define OUTPUT_VECTOR_FROM(place, i) ConstantVectors(place).values[i]
#else
#define Place int
Place moved(Place place, int elements) {
    return place + elements;
}
#define INPUT_PLACE(i) (int(pc.input_base) + (i))
#define INPUT_FROM(place, i) input_tensor.values[(place) + (i)]
#define INPUT_VECTOR_FROM(place, i) input_vectors.values[(place >> 2) + (i)]
#define OUTPUT_PLACE(i) (int(pc.output_base) + (i))
#define OUTPUT_FROM(place, i) output_tensor.values[(place) + (i)]
#define OUTPUT_VECTOR_FROM(place, i) output_vectors.values[(place >> 2) + (i)]
#endif

// Which tile this workgroup computes: dispatches are folded into x and y, because one axis may hold no more
// than 65,535 workgroups. A workgroup whose tile is not below pc.tile_end has nothing to do.
uint tile_index() {
    return pc.tile_begin + gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
}
