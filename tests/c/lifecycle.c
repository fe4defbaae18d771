/* Handles may be made and destroyed for ever, in any order, and while calls run. */
#include "test.h"

#include <pthread.h>

enum { CYCLES = 1000, KINDS = 5 };

static grilly_stats stats_of(grilly_context *context) {
    grilly_stats stats;
    grilly_stats_init(&stats, sizeof stats);
    OK(grilly_context_stats(context, &stats));
    return stats;
}

static void use_all(const Handles *all) {
    static Small small;
    grilly_plan_info info;
    small_init(&small);
    OK(grilly_buffer_write(all->buffer, 0, small.x, sizeof small.x));
    grilly_tensor_init_device(&small.tensor_x, sizeof small.tensor_x, all->buffer, 0, 4, X_SHAPE);
    grilly_plan_info_init(&info, sizeof info);
    OK(grilly_plan_info_get(all->plan, &info));
    OK(grilly_plan_run(all->plan, &small.io, 0, info.slices));
    small.io.weight = NULL;
    small.io.prepared = all->weights;
    OK(grilly_conv2d_forward(all->conv, &small.io));
    OK(grilly_conv2d_backward(all->conv, &small.io));
}

static void check_cycles(int32_t device) {
    grilly_context *context = open_context(device);
    const grilly_stats before = stats_of(context);
    grilly_stats warm = before;
    for (int cycle = 0; cycle < CYCLES; ++cycle) {
        const Handles all = open_handles(context);
        if (cycle % 10 == 0) use_all(&all);
        close_children(&all);
        if (cycle == 10) warm = stats_of(context);
    }
    const grilly_stats after = stats_of(context);
    CHECK(after.blocks_in_use == before.blocks_in_use, "%llu blocks are in use, at first %llu",
          (unsigned long long)after.blocks_in_use, (unsigned long long)before.blocks_in_use);
    CHECK(after.bytes_in_use == before.bytes_in_use, "%llu bytes are in use", (unsigned long long)after.bytes_in_use);
    CHECK(after.allocations == warm.allocations, "%llu blocks were taken from the device after warming up",
          (unsigned long long)(after.allocations - warm.allocations));
    CHECK(after.pipelines == warm.pipelines, "pipelines were compiled again");
    OK(grilly_context_trim(context));
    OK(grilly_context_destroy(context));
    group("a thousand cycles");
}

static grilly_status destroy(const Handles *all, int kind) {
    switch (kind) {
        case 0: return grilly_context_destroy(all->context);
        case 1: return grilly_buffer_destroy(all->buffer);
        case 2: return grilly_conv2d_destroy(all->conv);
        case 3: return grilly_weights_destroy(all->weights);
        default: return grilly_plan_destroy(all->plan);
    }
}

static void check_orders(int32_t device) {
    for (int order = 0; order < 5 * 4 * 3 * 2; ++order) {
        /* The order-th permutation, by picking from what is left. */
        int left[KINDS] = {0, 1, 2, 3, 4};
        const Handles all = open_handles(open_context(device));
        for (int rest = KINDS, choice = order; rest > 0; choice /= rest--) {
            const int kind = left[choice % rest];
            OK(destroy(&all, kind));
            REFUSED(GRILLY_ERROR_INVALID_HANDLE, destroy(&all, kind));
            memmove(left + choice % rest, left + choice % rest + 1, sizeof(int) * (size_t)(rest - choice % rest - 1));
        }
    }
    group("every order of destruction");

    const Handles orphans = open_handles(open_context(device));
    OK(grilly_context_destroy(orphans.context));
    use_all(&orphans);
    close_children(&orphans);
    group("objects outlive their context's handle");
}

typedef struct {
    const Handles *all;
    int calls, wrong;
} Runner;

/* Calls until the handle is gone; nothing but success and a stale handle may come. */
static void *run(void *argument) {
    Runner *runner = argument;
    Small *small = malloc(sizeof *small);
    if (small == NULL) return NULL;
    small_init(small);
    for (grilly_status status = GRILLY_OK; status == GRILLY_OK; ++runner->calls) {
        status = grilly_conv2d_backward(runner->all->conv, &small->io);
        if (status != GRILLY_OK && status != GRILLY_ERROR_INVALID_HANDLE) ++runner->wrong;
    }
    free(small);
    return NULL;
}

static void check_destroy_while_running(int32_t device) {
    static Small small;
    for (int round = 0; round < 10; ++round) {
        const Handles all = open_handles(open_context(device));
        Runner runners[3];
        pthread_t threads[3];
        for (int i = 0; i < 3; ++i) {
            runners[i] = (Runner){&all, 0, 0};
            CHECK(pthread_create(&threads[i], NULL, run, &runners[i]) == 0, "no thread");
        }
        small_init(&small);
        OK(grilly_conv2d_forward(all.conv, &small.io)); /* by now the others run, or are about to */
        OK(grilly_context_destroy(all.context));
        close_children(&all);
        for (int i = 0; i < 3; ++i) {
            CHECK(pthread_join(threads[i], NULL) == 0, "no end");
            CHECK(runners[i].calls > 0 && runners[i].wrong == 0, "%d of %d calls ended wrongly", runners[i].wrong,
                  runners[i].calls);
        }
    }
    group("destroy while others call");
}

int main(int argc, char **argv) {
    const int32_t device = device_argument(argc, argv);
    check_cycles(device);
    check_orders(device);
    check_destroy_while_running(device);
    return finish();
}
