// An input (binding 0) padded with copies of its own elements (binding 3), and back: the gradient of an element is the
// sum over its copies, in their order, so that the bits never change. The problem is the one whose output is the padded
// input: N C H W before, P Q after, begin paddings.
#version 450
#extension GL_GOOGLE_include_directive : require

#define INPUT_ACCESS
#define OUTPUT_ACCESS
#include "lib/problem.glsl"
#include "lib/elements.glsl"

#define MODE pc.extra_0
#define FOLD (pc.extra_1 != 0) // the gradient's way: from the padded input to the input

const uint REFLECT = 1;
const uint REPLICATE = 2;
const uint CIRCULAR = 3;

const uint PROMOTE = 64; // copies chained before they are added to the total

// Which element of an axis is copied to `at`, counted from the axis's own first element.
int original(int at, int size) {
    if (MODE == REFLECT) {
        at = abs(at);
        return at < size ? at : 2 * (size - 1) - at;
    }
    return MODE == REPLICATE ? clamp(at, 0, size - 1) : (at + size) % size;
}

// Where the copies of an element lie along its padded axis: a run before the input, the element itself, a run after.
struct Copies {
    int before, count_before, itself, after, count_after;
};

Copies copies_of(int at, int size, int begin, int padded) {
    int end = begin + size; // of the input, in the padded axis
    Copies copies = Copies(0, 0, begin + at, end, 0);
    if (MODE == REPLICATE) {
        copies.count_before = at == 0 ? begin : 0;
        copies.count_after = at == size - 1 ? padded - end : 0;
        return copies;
    }
    bool reflect = MODE == REFLECT;
    copies.before = reflect ? begin - at : begin + at - size;
    copies.after = reflect ? end + size - 2 - at : end + at;
    copies.count_before = copies.before >= 0 && copies.before < begin ? 1 : 0;
    copies.count_after = copies.after >= end && copies.after < padded ? 1 : 0;
    return copies;
}

int copy_count(Copies copies) {
    return copies.count_before + 1 + copies.count_after;
}

int copy_at(Copies copies, int i) {
    if (i < copies.count_before) {
        return copies.before + i;
    }
    i -= copies.count_before;
    return i == 0 ? copies.itself : copies.after + i - 1;
}

void pad(uint element) {
    uint plane = element / (pc.P * pc.Q);
    ivec2 at = ivec2(element / pc.Q % pc.P, element % pc.Q) - ivec2(pc.padding_h, pc.padding_w);
    uint row = plane * pc.H + original(at.x, int(pc.H));
    OUTPUT(element) = INPUT(row * pc.W + original(at.y, int(pc.W)));
}

void fold(uint element) {
    uint plane = element / (pc.H * pc.W);
    Copies rows = copies_of(int(element / pc.W % pc.H), int(pc.H), int(pc.padding_h), int(pc.P));
    Copies columns = copies_of(int(element % pc.W), int(pc.W), int(pc.padding_w), int(pc.Q));
    float sum = 0;
    float total = 0;
    uint chained = 0;
    for (int i = 0; i < copy_count(rows); ++i) {
        uint row = (plane * pc.P + copy_at(rows, i)) * pc.Q;
        for (int j = 0; j < copy_count(columns); ++j) {
            sum += OUTPUT(row + copy_at(columns, j));
            if (++chained == PROMOTE) {
                chained = 0;
                total += sum;
                sum = 0;
            }
        }
    }
    total += sum;
    INPUT(element) = (pc.flags & FLAG_ACCUMULATE) != 0 ? INPUT(element) + total : total;
}

void main() {
    uint element = element_index();
    uint plane = FOLD ? pc.H * pc.W : pc.P * pc.Q;
    if (element >= pc.N * pc.C * plane) {
        return;
    }
    if (FOLD) {
        fold(element);
    } else {
        pad(element);
    }
}
