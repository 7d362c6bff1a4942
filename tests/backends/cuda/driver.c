/* A CUDA driver without a device, for test_driver.py: the library that Numba's bindings look for.

   Memory is the host's, and so are copies; kernels are loaded and launched, and not run. What is asked for that takes
   time or changes memory is written down (`log_text`). While a stream is captured, what a driver refuses then is
   refused: memory, waiting, and all use of the default stream. Types are those of cuda.h as far as their sizes go. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NO_CONTEXT = 201, NOT_FOUND = 500, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901, CAPTURE_IMPLICIT = 906 };
enum { DEVICES = 2, CONTEXT = 0x1000, KERNELS = 0x1000000 };
typedef size_t handle;

static __thread handle contexts[64];
static __thread int depth;
static handle last = 0x20000, captured, captures;
static int invalid;
static char text[1 << 20];
static const char *names[1 << 16];
static int kernels;

const char *log_text(void) { return text; }
void log_clear(void) { *text = 0; }

static int device(void) { return depth ? (int)(contexts[depth - 1] - CONTEXT) : -1; }

static void say(const char *format, ...) {
    size_t used = strlen(text);
    va_list given;
    va_start(given, format);
    if (used + 4096 < sizeof text) {
        used += vsnprintf(text + used, 2048, format, given);
        snprintf(text + used, 64, " device %d\n", device());
    }
    va_end(given);
}

/* What a captured stream does not bear, of any stream; and of the default one. */
static int unsafe(const char *what) {
    say("%s", what);
    if (!captured) return 0;
    invalid = 1;
    say("refused %s", what);
    return CAPTURE_UNSUPPORTED;
}

static int on(const char *what, handle stream) {
    say("%s stream %zu", what, stream);
    if (!captured || stream > 1) return 0;
    invalid = 1;
    say("refused %s", what);
    return CAPTURE_IMPLICIT;
}

#define NOTHING(name) int name() { return 0; }
#define GIVES(name, type, value) int name(type *found) { *found = value; return 0; }
#define MAKES(name) int name(handle *made) { *made = last += 16; return 0; }

NOTHING(cuInit)
GIVES(cuDriverGetVersion, int, 13000)
GIVES(cuDeviceGetCount, int, DEVICES)
int cuDeviceGet(int *found, int number) { *found = number; return 0; }
int cuDeviceGetName(char *name, int size, int number) { snprintf(name, size, "no device %d", number); return 0; }
int cuDeviceGetUuid_v2(char *found, int number) { memset(found, number + 1, 16); return 0; }
int cuDeviceTotalMem_v2(size_t *found, int number) { *found = 1ul << 36; return 0; }
int cuDeviceGetAttribute(int *found, int which, int number) {
    switch (which) {
        case 1: case 2: case 3: *found = 1024; break; /* threads */
        case 4: *found = 64; break;
        case 5: *found = 2147483647; break; /* blocks */
        case 6: case 7: *found = 65535; break;
        case 8: *found = 49152; break; /* bytes of shared memory */
        case 10: *found = 32; break;
        case 16: *found = 132; break; /* multiprocessors */
        case 75: *found = 9; break; /* compute capability */
        case 76: *found = 0; break;
        default: *found = 1;
    }
    return 0;
}
int cuDevicePrimaryCtxRetain(handle *found, int number) { *found = CONTEXT + number; return 0; }
NOTHING(cuDevicePrimaryCtxRelease_v2)
NOTHING(cuDevicePrimaryCtxReset_v2)
NOTHING(cuDevicePrimaryCtxSetFlags_v2)
int cuDevicePrimaryCtxGetState(int number, unsigned *flags, int *active) { *flags = 0; *active = 1; return 0; }
int cuCtxPushCurrent_v2(handle context) { contexts[depth++] = context; return 0; }
int cuCtxPopCurrent_v2(handle *found) {
    if (!depth) return NO_CONTEXT;
    *found = contexts[--depth];
    return 0;
}
int cuCtxSetCurrent(handle context) {
    if (!depth) depth = 1;
    contexts[depth - 1] = context;
    return 0;
}
int cuCtxGetCurrent(handle *found) { *found = depth ? contexts[depth - 1] : 0; return 0; }
int cuCtxGetDevice(int *found) { *found = device(); return depth ? 0 : NO_CONTEXT; }
int cuCtxGetDevice_v2(int *found, handle context) { *found = (int)(context - CONTEXT); return 0; }
int cuCtxGetApiVersion(handle context, unsigned *found) { *found = 3020; return 0; }
int cuCtxGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -5; return 0; }
int cuCtxSynchronize(void) { return unsafe("wait for all"); }
int cuCtxSynchronize_v2(handle context) { return unsafe("wait for all"); }

GIVES(cuDeviceGetDefaultMemPool, handle, 1)
GIVES(cuDeviceGetMemPool, handle, 1)
NOTHING(cuMemPoolSetAttribute)
int cuMemPoolGetAttribute(handle pool, int which, int *found) { *found = 1; return 0; }
int cuMemGetInfo_v2(size_t *free_, size_t *all) { *free_ = *all = 1ul << 36; return 0; }
int cuMemAlloc_v2(handle *made, size_t size) {
    int refused = unsafe("allocate");
    void *memory;
    if (refused) return refused;
    if (posix_memalign(&memory, 512, size)) return 2;
    *made = (handle)memory;
    return 0;
}
int cuMemFree_v2(handle memory) {
    int refused = unsafe("free");
    if (!refused) free((void *)memory);
    return refused;
}
int cuMemcpyHtoD_v2(handle to, const void *from, size_t size) {
    memcpy((void *)to, from, size);
    return on("copy", 0);
}
int cuMemcpyDtoH_v2(void *to, handle from, size_t size) {
    memcpy(to, (void *)from, size);
    return on("copy", 0);
}
int cuMemcpyHtoDAsync_v2(handle to, const void *from, size_t size, handle stream) {
    memcpy((void *)to, from, size);
    return on("copy", stream);
}
int cuMemcpyDtoHAsync_v2(void *to, handle from, size_t size, handle stream) {
    memcpy(to, (void *)from, size);
    return on("copy", stream);
}
int cuPointerGetAttribute(void *found, int which, handle memory) {
    if (which == 1) *(handle *)found = CONTEXT;
    else *(int *)found = which == 2 ? 2 : 0;
    return 0;
}

int cuStreamCreate(handle *made, unsigned flags) { *made = last += 16; return 0; }
int cuStreamCreateWithPriority(handle *made, unsigned flags, int priority) { *made = last += 16; return 0; }
NOTHING(cuStreamDestroy_v2)
NOTHING(cuStreamQuery)
int cuStreamSynchronize(handle stream) {
    int refused = on("wait for", stream);
    return refused || !captured ? refused : unsafe("wait for a stream");
}
int cuStreamWaitEvent(handle stream, handle event, unsigned flags) { return on("wait on", stream); }
int cuStreamGetCtx(handle stream, handle *found) { *found = depth ? contexts[depth - 1] : CONTEXT; return 0; }
int cuStreamGetFlags(handle stream, unsigned *found) { *found = 0; return 0; }
int cuStreamGetPriority(handle stream, int *found) { *found = 0; return 0; }
int cuStreamGetDevice(handle stream, int *found) { *found = device(); return 0; }
int cuStreamIsCapturing(handle stream, int *found) { *found = captured && stream == captured; return 0; }
int cuStreamGetCaptureInfo_v3(
    handle stream, int *status, unsigned long long *id, handle *graph, handle *nodes, handle *edges, size_t *count
) {
    if (status) *status = captured && stream == captured;
    if (id) *id = captures;
    if (graph) *graph = 1;
    if (nodes) *nodes = 0;
    if (edges) *edges = 0;
    if (count) *count = 0;
    return 0;
}
int cuStreamBeginCapture_v2(handle stream, int mode) {
    captured = stream;
    captures++;
    invalid = 0;
    return 0;
}
int cuStreamEndCapture(handle stream, handle *graph) {
    captured = 0;
    *graph = 1;
    return invalid ? CAPTURE_INVALIDATED : 0;
}
int cuGraphInstantiateWithFlags(handle *made, handle graph, unsigned long long flags) { *made = 1; return 0; }
NOTHING(cuGraphLaunch)
NOTHING(cuGraphDestroy)
NOTHING(cuGraphExecDestroy)
int cuEventCreate(handle *made, unsigned flags) { *made = last += 16; return 0; }
int cuEventRecord(handle event, handle stream) { return on("record", stream); }
NOTHING(cuEventSynchronize)
NOTHING(cuEventQuery)
NOTHING(cuEventDestroy_v2)

int cuLibraryLoadData(handle *made) { *made = last += 16; return 0; }
NOTHING(cuLibraryUnload)
int cuLibraryGetModule(handle *found, handle library) { *found = library; return 0; }
int cuLibraryGetKernel(handle *found, handle library, const char *name) {
    names[kernels] = strdup(name);
    *found = KERNELS + kernels++;
    return 0;
}
int cuKernelGetFunction(handle *found, handle kernel) { *found = kernel; return 0; }
int cuKernelGetName(const char **found, handle kernel) { *found = names[kernel - KERNELS]; return 0; }
int cuKernelGetAttribute(int *found, int which, handle kernel, int number) { *found = which ? 0 : 1024; return 0; }
int cuKernelGetLibrary(handle *found, handle kernel) { *found = 1; return 0; }
int cuFuncGetAttribute(int *found, int which, handle function) { *found = which ? 0 : 1024; return 0; }
int cuFuncGetModule(handle *found, handle function) { *found = 1; return 0; }

typedef struct {
    unsigned blocks[3], threads[3], shared;
    handle stream;
} launch;
int cuLaunchKernelEx(const launch *given, handle kernel, void **arguments, void **extra) {
    if (!given->blocks[0] || !given->threads[0] || given->threads[0] > 1024) return 1;
    say("launch %s", names[kernel - KERNELS]);
    return on("launch", given->stream);
}
int cuLaunchKernel(
    handle kernel, unsigned x, unsigned y, unsigned z, unsigned a, unsigned b, unsigned c, unsigned shared,
    handle stream, void **arguments, void **extra
) {
    launch given = {{x, y, z}, {a, b, c}, shared, stream};
    return cuLaunchKernelEx(&given, kernel, arguments, extra);
}

int cuGetErrorName(int code, const char **found) { *found = "an error"; return 0; }
int cuGetErrorString(int code, const char **found) { *found = "an error"; return 0; }
int cuGetProcAddress_v2(const char *name, void **found, int version, unsigned long long flags, int *status) {
    static const char *const forms[] = {"%s_v3", "%s_v2", "%s", "%sWithFlags"};
    int plain = !strcmp(name, "cuCtxGetDevice") || !strcmp(name, "cuCtxSynchronize"); /* the others take a context */
    char form[256];
    void *self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    *found = 0;
    for (int i = plain ? 2 : 0; i < 4 && !*found; i++) {
        snprintf(form, sizeof form, forms[i], name);
        *found = dlsym(self, form);
    }
    if (status) *status = *found ? 0 : 1;
    return 0;
}
int cuGetProcAddress(const char *name, void **found, int version, unsigned long long flags) {
    return cuGetProcAddress_v2(name, found, version, flags, 0);
}
