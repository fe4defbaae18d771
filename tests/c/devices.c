/* Prints the index of every Vulkan device that a context can be opened on, for run-native.sh. */
#include <grilly.h>

#include <stdio.h>

int main(void) {
    uint32_t count = 0;
    if (grilly_device_count(&count) != GRILLY_OK) {
        fprintf(stderr, "%s\n", grilly_last_error_message());
        return 1;
    }
    for (uint32_t index = 0; index < count; ++index) {
        grilly_device_info info;
        grilly_context_desc desc;
        grilly_context *context = NULL;
        grilly_device_info_init(&info, sizeof info);
        if (grilly_device_info_get(index, &info) != GRILLY_OK || info.kind == GRILLY_DEVICE_KIND_CPU) continue;
        grilly_context_desc_init(&desc, sizeof desc);
        desc.device = (int32_t)index;
        if (grilly_context_create(&desc, &context) == GRILLY_OK) printf("%u\n", index);
        else fprintf(stderr, "device %u (%s) is left out: %s\n", index, info.name, grilly_last_error_message());
        grilly_context_destroy(context);
    }
    return 0;
}
