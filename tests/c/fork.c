/* A forked child must not touch its parent's device: handles say so, and a new context works. */
#define _POSIX_C_SOURCE 200809L
#include "test.h"

#include <sys/wait.h>
#include <unistd.h>

static grilly_buffer *array;
static grilly_ticket *ticket;
static float *values;

static void check_child(const Handles *parents, int32_t device) {
    static Small small;
    uint64_t bytes = 0;
    grilly_plan_info info;
    grilly_stats stats;
    small_init(&small);
    grilly_plan_info_init(&info, sizeof info);
    grilly_stats_init(&stats, sizeof stats);
    REFUSED(GRILLY_ERROR_FORKED, grilly_context_stats(parents->context, &stats));
    REFUSED(GRILLY_ERROR_FORKED, grilly_buffer_size(parents->buffer, &bytes));
    REFUSED(GRILLY_ERROR_FORKED, grilly_conv2d_forward(parents->conv, &small.io));
    REFUSED(GRILLY_ERROR_FORKED, grilly_plan_info_get(parents->plan, &info));
    group("in the child, the parent's handles are refused");

    CHECK(values[0] == 1.5f && values[9999] == 2.5f, "the array changed");
    values[0] = 3;
    OK(grilly_buffer_destroy(array));
    CHECK(values[0] == 3, "the array is gone");
    group("in the child, the parent's host memory is the child's own copy");

    /* Before and after the child has a context of its own. */
    const Handles own = open_handles(open_context(device));
    REFUSED(GRILLY_ERROR_FORKED, grilly_context_stats(parents->context, &stats));
    REFUSED(GRILLY_ERROR_FORKED, grilly_conv2d_forward(parents->conv, &small.io));
    REFUSED(GRILLY_ERROR_FORKED, grilly_ticket_wait(ticket, 0));
    OK(grilly_ticket_destroy(ticket));
    small.io.weight = NULL;
    small.io.prepared = parents->weights;
    REFUSED(GRILLY_ERROR_FORKED, grilly_conv2d_forward(own.conv, &small.io));
    small.io.prepared = own.weights;
    OK(grilly_conv2d_forward(own.conv, &small.io));
    group("in the child, a new context works");

    close_children(parents);
    OK(grilly_context_destroy(parents->context));
    OK(grilly_conv2d_forward(own.conv, &small.io));
    close_children(&own);
    OK(grilly_context_destroy(own.context));
    group("in the child, destroying the parent's handles does nothing");
}

int main(int argc, char **argv) {
    const int32_t device = device_argument(argc, argv);
    const Handles handles = open_handles(open_context(device));
    static Small small;
    small_init(&small);
    OK(grilly_conv2d_forward(handles.conv, &small.io));
    OK(grilly_conv2d_submit_forward(handles.conv, &small.io, &ticket));
    void *data = NULL;
    OK(grilly_buffer_create_host(handles.context, 10000 * sizeof(float), &array, &data));
    values = data;
    values[0] = 1.5f;
    values[9999] = 2.5f;
    group("before the fork");

    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        check_child(&handles, device);
        /* As forked children should: exit() would run the exit handlers that the parent's driver left behind, and
         * Mesa's wait for threads that this process never had. */
        fflush(NULL);
        _exit(finish());
    }
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child, "no child");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with status %#x", (unsigned)status);
    OK(grilly_conv2d_forward(handles.conv, &small.io));
    OK(grilly_ticket_wait(ticket, UINT64_MAX));
    OK(grilly_ticket_destroy(ticket));
    CHECK(values[0] == 1.5f, "the child wrote to the parent's array");
    close_children(&handles);
    OK(grilly_context_destroy(handles.context));
    CHECK(values[9999] == 2.5f, "the array went with its context");
    OK(grilly_buffer_destroy(array));
    group("the parent goes on");
    return finish();
}
