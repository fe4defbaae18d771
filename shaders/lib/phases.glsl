// Which result pixels read which source pixels through which kernel elements (taps).
//
// Forward, y at p reads x at p·stride − padding + r·dilation for every tap r.
//
// Backward, dx at h reads dy at p wherever p·stride − padding + r·dilation = h. Which taps r solve that depends on
// h mod stride alone, so the pixels are taken by this phase: h = phase + i·stride reads taps r₀ + t·tap_step at
// p₀ + i − t·dilation / gcd(stride, dilation), which is a forward pass of stride 1 over fewer taps. (The polyphase
// decomposition of an upsampling filter; see Crochiere and Rabiner, Multirate Digital Signal Processing, 1983.)
//
// Results are counted by cells: a cell has one pixel of each phase.
//
// Where the result has few channels, all phases can be taken at once, as further rows of the product: a cell reads every
// source pixel that any of its pixels reads, and a phase sits out those that it does not. (A sub-pixel convolution; see
// Shi et al., Real-Time Single Image and Video Super-Resolution, CVPR 2016.)

#define TAP_STEP_H pc.extra_0 // backward: stride / gcd(stride, dilation)
#define TAP_STEP_W pc.extra_1

// One of the two axes of a phase.
struct Axis {
    uint result;      // first pixel
    uint result_step; // to the next pixel, in the next cell
    int source;       // what the first pixel reads through the first tap
    int source_step;  // from a pixel to the next
    uint tap;         // first tap
    uint tap_step;    // to the next tap
    uint taps;        // how many
    int reach;        // from what is read through one tap to what is read through the next
};

#ifdef BACKWARD_INPUT
layout(constant_id = 2) const bool JOINT_PHASES = false; // only for a dilation of 1

// A phase beyond the height or width has no pixel.
uvec2 phases() { return min(uvec2(pc.stride_h, pc.stride_w), uvec2(pc.H, pc.W)); }

Axis axis(uint phase, uint stride, uint padding, uint dilation, uint kernel, uint tap_step) {
    uint most = min(tap_step, kernel);
    uint tap = 0;
    while (tap < most && tap * dilation % stride != (phase + padding) % stride) {
        ++tap;
    }
    uint taps = tap < most ? (kernel - tap + tap_step - 1) / tap_step : 0;
    int source = (int(phase + padding) - int(tap * dilation)) / int(stride);
    return Axis(phase, stride, source, 1, tap, tap_step, taps, -int(tap_step * dilation / stride));
}

Axis axis_h(uint phase) { return axis(phase, pc.stride_h, pc.padding_h, pc.dilation_h, pc.R, TAP_STEP_H); }
Axis axis_w(uint phase) { return axis(phase, pc.stride_w, pc.padding_w, pc.dilation_w, pc.S, TAP_STEP_W); }

// Cells: through tap t, source pixel source + i − t reaches phase f of cell i with kernel element
// f + padding − (source − t)·stride.
Axis joint_axis(uint stride, uint padding, uint kernel) {
    uint source = (padding + stride - 1) / stride;
    uint taps = (source * stride - padding + kernel - 1) / stride + 1;
    return Axis(0, stride, int(source), 1, 0, 1, taps, -1);
}
#else
const bool JOINT_PHASES = false;
uvec2 phases() { return uvec2(1); }
Axis axis_h(uint phase) { return Axis(0, 1, -int(pc.padding_h), int(pc.stride_h), 0, 1, pc.R, int(pc.dilation_h)); }
Axis axis_w(uint phase) { return Axis(0, 1, -int(pc.padding_w), int(pc.stride_w), 0, 1, pc.S, int(pc.dilation_w)); }
#endif
