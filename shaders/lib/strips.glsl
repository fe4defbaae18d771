// Kernels by strips, for depthwise layers and groups of few channels: a thread takes COLUMNS × ROWS neighbouring pixels
// of a plane and goes down the source's lines, each of which it reads once, for all rows of the strip that it reaches.
// Kernel and stride are #defines, so that every loop unrolls and everything is held in registers.
//
// A line's window begins 4 columns before the strip's own SPAN columns of the source, which begin at a multiple of 4: with
// row widths that are multiples of 4 too, each vector of the window lies within the row or outside of it.
//
// spirv-opt does not unroll a loop that has another one within a branch: branches stand inside of loops here.

#include "lib/unpack.glsl"
#include "lib/vectors.glsl"

layout(constant_id = 0) const int PADDING_COLUMNS = 0; // pc.padding_w

const int TAPS = KERNEL_R * KERNEL_S;

#ifdef BACKWARD_INPUT
// Row i of the strip reads line j through kernel row r: (ROW_PHASE + i) − r = STRIDE·j. Likewise its columns.
// ROW_PHASE is the largest r below KERNEL_R through which row 0 reads anything.
#if STRIDE == 1
const int ROW_PHASE = KERNEL_R - 1;
#else
layout(constant_id = 1) const int ROW_PHASE = 0;
#endif

const int COLUMNS = 4 * STRIDE;
const int SPAN = 4;
const int LINES = (ROWS - 1 + KERNEL_R - 1) / STRIDE + 1;
#define KERNEL_ROW(i, j) (ROW_PHASE + (i) - STRIDE * (j))
#if STRIDE == 1
#define READS_COLUMN(column, s) true
#define FIRST_COLUMN (4 + PADDING_COLUMNS - (KERNEL_S - 1))
#define WINDOW_COLUMN(column, s) ((column) - (s) + KERNEL_S - 1)
const int WINDOW = COLUMNS + KERNEL_S - 1;
#else
#define READS_COLUMN(column, s) ((((column) + PADDING_COLUMNS - (s)) & (STRIDE - 1)) == 0)
#define FIRST_COLUMN 0
#define WINDOW_COLUMN(column, s) (4 + ((column) + PADDING_COLUMNS - (s)) / STRIDE)
const int WINDOW = 4 + SPAN + 4;
#endif
#define FIRST_LINE(row) (((row) + int(pc.padding_h) - ROW_PHASE) / STRIDE)
#if STRIDE == 1
#define LAST_LINE(i) (KERNEL_R - 1 + (i))
#else
#define LAST_LINE(i) (LINES - 1)
#endif
#else
const int COLUMNS = 4;
const int SPAN = 4 * STRIDE;
const int LINES = (ROWS - 1) * STRIDE + KERNEL_R;
#define KERNEL_ROW(i, j) ((j) - STRIDE * (i))
#define READS_COLUMN(column, s) true
#define FIRST_COLUMN (4 - PADDING_COLUMNS)
#define WINDOW_COLUMN(column, s) ((column) * STRIDE + (s))
const int WINDOW = (COLUMNS - 1) * STRIDE + KERNEL_S;
#define FIRST_LINE(row) ((row) * STRIDE - int(pc.padding_h))
#define LAST_LINE(i) ((i) * STRIDE + KERNEL_R - 1)
#endif

#define READS(i, j, column, s) (KERNEL_ROW(i, j) >= 0 && KERNEL_ROW(i, j) < KERNEL_R && READS_COLUMN(column, s))

// A strip's place among the result's.
struct Strip {
    uint plane; // image · channels + channel
    int row, column;
};

uint strips_across() {
    return (RESULT_WIDTH + COLUMNS - 1) / COLUMNS;
}

uint strips_down() {
    return (RESULT_HEIGHT + ROWS - 1) / ROWS;
}

// The strip of that index, in the order [plane][down][across].
Strip strip_at(uint index) {
    uint across = strips_across(), down = strips_down();
    uint line = index / across;
    return Strip(line / down, int(line % down * ROWS), int(index % across * COLUMNS));
}

// The column of the source where a strip's window begins: 4 before the strip's own SPAN columns.
int window_column(int column) {
    return column / COLUMNS * SPAN - 4;
}

// Where the window of a line lies, of the strip that begins at that column of the result; line and column may lie outside.
Place window_place(uint plane, int line, int column) {
    return SOURCE_PLACE((int(plane * SOURCE_HEIGHT) + line) * int(SOURCE_WIDTH) + window_column(column));
}

// A vector of a window, and zeros outside of the source. The window lies there; the vector is its i-th and begins at that
// column of the source.
vec4 read_four(Place window, int i, int column, bool inside) {
    vec4 read = vec4(0);
    if ((VECTORS & SOURCE_VECTORS) != 0) {
        if (inside && uint(column) < SOURCE_WIDTH) {
            read = SOURCE_VECTOR_FROM(window, i);
        }
        return read;
    }
    [[unroll]] for (int next = 0; next < 4; ++next) {
        if (inside && uint(column + next) < SOURCE_WIDTH) {
            read[next] = SOURCE_FROM(window, 4 * i + next);
        }
    }
    return read;
}

// A line's window for the strip that begins at that column of the result; zeros outside of the source. Columns before the
// first that any result reads are left out, so that the padding, a specialization constant, is in no other index.
void read_window(Place place, int line, int column, out float window[WINDOW]) {
    int first = window_column(column);
    bool inside = uint(line) < SOURCE_HEIGHT;
    float values[4 + SPAN + 4];
    [[unroll]] for (int i = 0; i < 2 + SPAN / 4; ++i) {
        UNPACK(read_four(place, i, first + 4 * i, inside), values, 4 * i)
    }
    [[unroll]] for (int i = 0; i < WINDOW; ++i) {
        window[i] = values[FIRST_COLUMN + i];
    }
}
