/* Every function that takes a handle, with every kind of handle it must refuse. */
#include "test.h"

typedef enum { CONTEXT, BUFFER, CONV, WEIGHTS, PLAN, TICKET, TYPES } Type;
static const char *const TYPE_NAMES[TYPES] = {"context", "buffer", "conv2d", "weights", "plan", "ticket"};

/* Where the calls write; a refused call must leave every byte alone. */
typedef struct {
    Small small;
    Handles made;
    grilly_ticket *ticket;
    uint64_t bytes;
    int64_t shape[4];
    void *data;
    grilly_device_info info;
    grilly_stats stats;
    grilly_memory memory;
    grilly_plan_info plan_info;
} Scene;

static void scene_init(Scene *scene) {
    memset(scene, 0, sizeof *scene);
    small_init(&scene->small);
    grilly_device_info_init(&scene->info, sizeof scene->info);
    grilly_stats_init(&scene->stats, sizeof scene->stats);
    grilly_memory_init(&scene->memory, sizeof scene->memory);
    grilly_plan_info_init(&scene->plan_info, sizeof scene->plan_info);
}

static const grilly_conv2d *good_conv;

static grilly_status with_buffer(Scene *scene, void *handle, int is_output) {
    grilly_conv2d_io io = scene->small.io;
    grilly_tensor tensor;
    grilly_tensor_init_device(&tensor, sizeof tensor, handle, 0, 4, is_output ? Y_SHAPE : X_SHAPE);
    if (is_output) io.y = &tensor;
    else io.x = &tensor;
    return grilly_conv2d_forward(good_conv, &io);
}

static grilly_status with_prepared(Scene *scene, void *handle) {
    grilly_conv2d_io io = scene->small.io;
    io.weight = NULL;
    io.prepared = handle;
    return grilly_conv2d_forward(good_conv, &io);
}

#define USES(USE)                                                                                                    \
    USE(buffer_create, CONTEXT, grilly_buffer_create(handle, 16, &scene->made.buffer))                               \
    USE(buffer_create_host, CONTEXT, grilly_buffer_create_host(handle, 16, &scene->made.buffer, &scene->data))       \
    USE(context_device_info, CONTEXT, grilly_context_device_info(handle, &scene->info))                              \
    USE(context_stats, CONTEXT, grilly_context_stats(handle, &scene->stats))                                         \
    USE(context_trim, CONTEXT, grilly_context_trim(handle))                                                          \
    USE(conv2d_create, CONTEXT, create_conv(scene, handle))                                                          \
    USE(context_destroy, CONTEXT, grilly_context_destroy(handle))                                                    \
    USE(buffer_size, BUFFER, grilly_buffer_size(handle, &scene->bytes))                                              \
    USE(buffer_write, BUFFER, grilly_buffer_write(handle, 0, scene->small.x, 16))                                    \
    USE(buffer_write_nothing, BUFFER, grilly_buffer_write(handle, 0, NULL, 0))                                       \
    USE(buffer_read, BUFFER, grilly_buffer_read(handle, 0, scene->small.y, 16))                                      \
    USE(buffer_of_input, BUFFER, with_buffer(scene, handle, 0))                                                      \
    USE(buffer_of_output, BUFFER, with_buffer(scene, handle, 1))                                                     \
    USE(buffer_destroy, BUFFER, grilly_buffer_destroy(handle))                                                       \
    USE(conv2d_output_shape, CONV, grilly_conv2d_output_shape(handle, X_SHAPE, scene->shape))                        \
    USE(conv2d_forward, CONV, grilly_conv2d_forward(handle, &scene->small.io))                                       \
    USE(conv2d_backward, CONV, grilly_conv2d_backward(handle, &scene->small.io))                                     \
    USE(conv2d_submit_forward, CONV, grilly_conv2d_submit_forward(handle, &scene->small.io, &scene->ticket))         \
    USE(conv2d_submit_backward, CONV, grilly_conv2d_submit_backward(handle, &scene->small.io, &scene->ticket))       \
    USE(conv2d_init_parameters, CONV, grilly_conv2d_init_parameters(handle, 1, scene->small.weight, NULL))           \
    USE(conv2d_memory, CONV, grilly_conv2d_memory(handle, X_SHAPE, &scene->memory))                                  \
    USE(conv2d_plan, CONV, grilly_conv2d_plan(handle, GRILLY_PASS_FORWARD, X_SHAPE, 0, &scene->made.plan))           \
    USE(weights_create, CONV, grilly_weights_create(handle, &scene->small.tensor_weight, &scene->made.weights))      \
    USE(conv2d_destroy, CONV, grilly_conv2d_destroy(handle))                                                         \
    USE(weights_of_forward, WEIGHTS, with_prepared(scene, handle))                                                   \
    USE(weights_destroy, WEIGHTS, grilly_weights_destroy(handle))                                                    \
    USE(plan_info_get, PLAN, grilly_plan_info_get(handle, &scene->plan_info))                                        \
    USE(plan_run, PLAN, grilly_plan_run(handle, &scene->small.io, 0, 1))                                             \
    USE(plan_destroy, PLAN, grilly_plan_destroy(handle))                                                             \
    USE(ticket_wait, TICKET, grilly_ticket_wait(handle, UINT64_MAX))                                                 \
    USE(ticket_destroy, TICKET, grilly_ticket_destroy(handle))

static grilly_status create_conv(Scene *scene, void *handle) {
    const grilly_conv2d_desc desc = small_desc();
    return grilly_conv2d_create(handle, &desc, &scene->made.conv);
}

#define DEFINE(name, type, call) \
    static grilly_status use_##name(Scene *scene, void *handle) { (void)scene; return call; }
USES(DEFINE)

#define ROW(name, type, call) {#name, type, use_##name},
static const struct {
    const char *name;
    Type type;
    grilly_status (*call)(Scene *, void *);
} TABLE[] = {USES(ROW)};

/* NULL is no error to destroy, and elsewhere may mean "absent", which is then a wrong argument. */
static grilly_status null_status(const char *name) {
    if (strstr(name, "_destroy") != NULL) return GRILLY_OK;
    if (strstr(name, "_of_") != NULL) return GRILLY_ERROR_INVALID_ARGUMENT;
    return GRILLY_ERROR_INVALID_HANDLE;
}

static void refuse(size_t row, void *handle, const char *state, grilly_status want) {
    static Scene before, after;
    scene_init(&before);
    scene_init(&after);
    /* The tensors point into their own scene, and the calls use the second one. */
    memcpy(&before.small, &after.small, sizeof before.small);
    const grilly_status got = TABLE[row].call(&after, handle);
    const char *message = grilly_last_error_message();
    CHECK(got == want, "%s with a %s handle: got %s (%s), want %s", TABLE[row].name, state, grilly_status_string(got),
          message, grilly_status_string(want));
    CHECK(got == GRILLY_OK || message[0] != '\0', "%s with a %s handle: no message", TABLE[row].name, state);
    CHECK(memcmp(&before, &after, sizeof before) == 0, "%s with a %s handle wrote something", TABLE[row].name, state);
}

static grilly_ticket *some_ticket(const Handles *handles) {
    static Small small;
    grilly_ticket *ticket = NULL;
    small_init(&small);
    OK(grilly_conv2d_submit_forward(handles->conv, &small.io, &ticket));
    return ticket;
}

int main(int argc, char **argv) {
    const int32_t device = device_argument(argc, argv);
    const Handles live = open_handles(open_context(device));
    const Handles dead = open_handles(open_context(device));
    grilly_ticket *const live_ticket = some_ticket(&live), *const dead_ticket = some_ticket(&dead);
    close_children(&dead);
    OK(grilly_context_destroy(dead.context));
    OK(grilly_ticket_destroy(dead_ticket));
    group("live and dead handles");
    void *const alive[TYPES] = {live.context, live.buffer, live.conv, live.weights, live.plan, live_ticket};
    void *const gone[TYPES] = {dead.context, dead.buffer, dead.conv, dead.weights, dead.plan, dead_ticket};
    good_conv = live.conv;

    for (size_t row = 0; row < sizeof TABLE / sizeof *TABLE; ++row) {
        const Type type = TABLE[row].type;
        refuse(row, NULL, "null", null_status(TABLE[row].name));
        refuse(row, gone[type], "destroyed", GRILLY_ERROR_INVALID_HANDLE);
        for (int other = 0; other < TYPES; ++other) {
            if (other == (int)type) continue;
            refuse(row, alive[other], TYPE_NAMES[other], GRILLY_ERROR_INVALID_HANDLE);
            refuse(row, gone[other], "destroyed one of another type", GRILLY_ERROR_INVALID_HANDLE);
        }
    }
    group("null, destroyed and wrongly typed handles");

    for (size_t row = 0; row < sizeof TABLE / sizeof *TABLE; ++row) {
        const uintptr_t good = (uintptr_t)alive[TABLE[row].type];
        uintptr_t garbage[4 + 64] = {1, UINTPTR_MAX, (uintptr_t)&live, (uintptr_t)0xdeadbeefcafef00d};
        /* Near misses: a good handle with one bit turned, which may name another object's place. */
        for (int bit = 0; bit < 64; ++bit) garbage[4 + bit] = good ^ (uintptr_t)1 << bit;
        for (size_t i = 0; i < sizeof garbage / sizeof *garbage; ++i) {
            static Scene scene;
            scene_init(&scene);
            const grilly_status got = TABLE[row].call(&scene, (void *)garbage[i]);
            CHECK(got == GRILLY_ERROR_INVALID_HANDLE, "%s with garbage %#llx (a good one is %#llx): got %s",
                  TABLE[row].name, (unsigned long long)garbage[i], (unsigned long long)good,
                  grilly_status_string(got));
        }
    }
    group("garbage handles");

    static Scene scene;
    for (size_t row = 0; row < sizeof TABLE / sizeof *TABLE; ++row) {
        if (strstr(TABLE[row].name, "_destroy") != NULL) continue;
        scene_init(&scene);
        const grilly_status got = TABLE[row].call(&scene, alive[TABLE[row].type]);
        CHECK(got == GRILLY_OK, "%s with a good handle: %s (%s)", TABLE[row].name, grilly_status_string(got),
              grilly_last_error_message());
        OK(grilly_buffer_destroy(scene.made.buffer));
        OK(grilly_conv2d_destroy(scene.made.conv));
        OK(grilly_plan_destroy(scene.made.plan));
        OK(grilly_weights_destroy(scene.made.weights));
        OK(grilly_ticket_destroy(scene.ticket));
    }
    group("the good handles still work");

    close_children(&live);
    OK(grilly_context_destroy(live.context));
    OK(grilly_ticket_destroy(live_ticket));
    for (size_t row = 0; row < sizeof TABLE / sizeof *TABLE; ++row) {
        refuse(row, alive[TABLE[row].type], "just destroyed", GRILLY_ERROR_INVALID_HANDLE);
    }
    group("doubly destroyed handles");
    return finish();
}
