/* edgecls runner: measures one .tflite file on a Linux computer, or computes its outputs, through LiteRT's C API.
 *
 *   edgecls_runner --graph=FILE [--num_threads=1] [--warmup_runs=1] [--warmup_min_secs=0.5] [--num_runs=50]
 *                  [--min_secs=1] [--max_secs=150] [--seed=0] [--library=FILE]
 *   edgecls_runner --graph=FILE --input=FILE --output=FILE [--num_threads=1] [--library=FILE]
 *
 * The first form repeats inferences on random input, by the flags of TensorFlow Lite's benchmark_model, and prints the
 * microseconds of every run. The second computes the outputs of all inputs in a file of raw bytes, one after the other.
 * What it prints is described in parse.py; only with a last line "end" is it whole. Exit code 0; 1 and a line on stderr
 * when the model does not load or run; 2 for a flag that is wrong.
 *
 * libLiteRt.so, of the Python package ai-edge-litert 2.3.0, is loaded from beside this program: its interface may change
 * with any release. The process ends with its model, so nothing is ever released.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { CPU = 1, ALIGNMENT = 64, TENSORS = 16 };
enum { FLOAT32 = 1, INT32 = 2, INT64 = 4, BOOL = 6, INT16 = 7, FLOAT16 = 10 }; /* as in TensorFlow Lite */

typedef struct {
    int32_t element;
    uint32_t rank; /* in the low 7 bits */
    int32_t dimensions[8];
    uint32_t strides[8];
} TensorType;

/* What we use of the library; every function but none returns 0 when it succeeded. */
#define FUNCTIONS(X)                                                                     \
    X(CreateEnvironment, (int, const void *, void **))                                   \
    X(CreateModelFromFile, (void *, const char *, void **))                              \
    X(GetModelSignature, (void *, size_t, void **))                                      \
    X(GetNumSignatureInputs, (void *, size_t *))                                         \
    X(GetNumSignatureOutputs, (void *, size_t *))                                        \
    X(GetSignatureInputTensorByIndex, (void *, size_t, void **))                         \
    X(GetSignatureOutputTensorByIndex, (void *, size_t, void **))                        \
    X(GetRankedTensorType, (void *, TensorType *))                                       \
    X(CreateOptions, (void **))                                                          \
    X(SetOptionsHardwareAccelerators, (void *, int))                                     \
    X(CreateOpaqueOptions, (const char *, void *, void (*)(void *), void **))            \
    X(AddOpaqueOptions, (void *, void *))                                                \
    X(CreateCompiledModel, (void *, void *, void *, void **))                            \
    X(GetCompiledModelInputBufferRequirements, (void *, size_t, size_t, void **))        \
    X(GetCompiledModelOutputBufferRequirements, (void *, size_t, size_t, void **))       \
    X(GetTensorBufferRequirementsBufferSize, (void *, size_t *))                         \
    X(CreateTensorBufferFromHostMemory, (const TensorType *, void *, size_t, void (*)(void *), void **)) \
    X(GetTensorBufferPackedSize, (void *, size_t *))                                     \
    X(RunCompiledModel, (void *, size_t, size_t, void **, size_t, void **))

#define DECLARE(name, arguments) static int(*name) arguments;
FUNCTIONS(DECLARE)

typedef struct {
    void *buffer, *memory;
    size_t bytes;
    TensorType type;
} Tensor;

static struct {
    const char *graph, *input, *output, *library;
    long threads, warmup, runs, seed;
    double warmup_s, run_s, max_s;
} flags = {.threads = 1, .warmup = 1, .runs = 50, .warmup_s = 0.5, .run_s = 1, .max_s = 150};

static void *environment, *compiled;
static Tensor inputs[TENSORS], outputs[TENSORS];
static size_t input_count, output_count;

static void stop(int code, const char *format, ...) {
    va_list values;
    va_start(values, format);
    fflush(stdout);
    fprintf(stderr, "edgecls_runner: ");
    vfprintf(stderr, format, values);
    fprintf(stderr, "\n");
    exit(code);
}

static void must(int status, const char *what) {
    if (status) stop(1, "%s failed (LiteRT status %d): %s", what, status, flags.graph);
}

static double now_us(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static long peak_kb(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
}

static double number(const char *flag, const char *text, double least) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= least && value < 1e9)) stop(2, "wrong number: --%s=%s", flag, text);
    return value;
}

static void read_flags(int count, char **values) {
    for (int i = 1; i < count; i++) {
        char *name = values[i] + 2, *value = strchr(values[i], '=');
        if (strncmp(values[i], "--", 2) || !value) stop(2, "not a flag: %s", values[i]);
        *value++ = 0;
        if (!strcmp(name, "graph")) flags.graph = value;
        else if (!strcmp(name, "input")) flags.input = value;
        else if (!strcmp(name, "output")) flags.output = value;
        else if (!strcmp(name, "library")) flags.library = value;
        else if (!strcmp(name, "num_threads")) flags.threads = number(name, value, 1);
        else if (!strcmp(name, "warmup_runs")) flags.warmup = number(name, value, 0);
        else if (!strcmp(name, "warmup_min_secs")) flags.warmup_s = number(name, value, 0);
        else if (!strcmp(name, "num_runs")) flags.runs = number(name, value, 1);
        else if (!strcmp(name, "min_secs")) flags.run_s = number(name, value, 0);
        else if (!strcmp(name, "max_secs")) flags.max_s = number(name, value, 0);
        else if (!strcmp(name, "seed")) flags.seed = number(name, value, 0);
        else stop(2, "unknown flag: --%s", name);
    }
    if (!flags.graph) stop(2, "which model? --graph=FILE");
    if (!flags.input != !flags.output) stop(2, "--input and --output need each other");
}

static void load_library(const char *program) {
    char path[4096];
    const char *slash = strrchr(program, '/');
    if (flags.library) snprintf(path, sizeof path, "%s", flags.library);
    else snprintf(path, sizeof path, "%.*slibLiteRt.so", slash ? (int)(slash - program + 1) : 0, program);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) stop(1, "cannot load LiteRT: %s", dlerror());
#define RESOLVE(name, arguments)                          \
    *(void **)&name = dlsym(library, "LiteRt" #name);     \
    if (!name) stop(1, "this libLiteRt.so has no LiteRt" #name ": take that of ai-edge-litert 2.3.0");
    FUNCTIONS(RESOLVE)
}

static void make_tensor(Tensor *tensor, void *handle, void *requirements) {
    size_t size;
    must(GetRankedTensorType(handle, &tensor->type), "reading a tensor's type");
    for (uint32_t i = 0; i < (tensor->type.rank & 0x7f) && i < 8; i++)
        if (tensor->type.dimensions[i] < 1) stop(1, "the model has no fixed shape, export it with batch 1: %s", flags.graph);
    must(GetTensorBufferRequirementsBufferSize(requirements, &size), "reading a tensor's size");
    tensor->memory = aligned_alloc(ALIGNMENT, (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    if (!tensor->memory) stop(1, "no memory for %zu bytes", size);
    must(CreateTensorBufferFromHostMemory(&tensor->type, tensor->memory, size, NULL, &tensor->buffer), "making a tensor");
    must(GetTensorBufferPackedSize(tensor->buffer, &tensor->bytes), "reading a tensor's size");
}

static void load_model(void) {
    void *model, *signature, *options, *cpu, *tensor, *requirements;
    char threads[32];
    must(CreateEnvironment(0, NULL, &environment), "starting LiteRT");
    must(CreateModelFromFile(environment, flags.graph, &model), "reading the model");
    must(CreateOptions(&options), "making options");
    must(SetOptionsHardwareAccelerators(options, CPU), "asking for the CPU");
    snprintf(threads, sizeof threads, "num_threads = %ld\n", flags.threads);
    must(CreateOpaqueOptions("xnnpack", strdup(threads), free, &cpu), "making options");
    must(AddOpaqueOptions(options, cpu), "setting the number of threads");
    must(GetModelSignature(model, 0, &signature), "reading the model's signature");
    must(GetNumSignatureInputs(signature, &input_count), "counting inputs");
    must(GetNumSignatureOutputs(signature, &output_count), "counting outputs");
    if (input_count > TENSORS || output_count > TENSORS) stop(1, "more than %d inputs or outputs", TENSORS);
    must(CreateCompiledModel(environment, model, options, &compiled), "preparing the model");
    for (size_t i = 0; i < input_count; i++) {
        must(GetSignatureInputTensorByIndex(signature, i, &tensor), "reading an input");
        must(GetCompiledModelInputBufferRequirements(compiled, 0, i, &requirements), "reading an input");
        make_tensor(&inputs[i], tensor, requirements);
    }
    for (size_t i = 0; i < output_count; i++) {
        must(GetSignatureOutputTensorByIndex(signature, i, &tensor), "reading an output");
        must(GetCompiledModelOutputBufferRequirements(compiled, 0, i, &requirements), "reading an output");
        make_tensor(&outputs[i], tensor, requirements);
    }
}

static double invoke(void) {
    void *in[TENSORS], *out[TENSORS];
    for (size_t i = 0; i < input_count; i++) in[i] = inputs[i].buffer;
    for (size_t i = 0; i < output_count; i++) out[i] = outputs[i].buffer;
    double begin = now_us();
    must(RunCompiledModel(compiled, 0, input_count, in, output_count, out), "running the model");
    return now_us() - begin;
}

/* Any byte for 8-bit types, [0, 1) for floats, 0 or 1 for other integers. */
static void fill(Tensor *tensor, uint64_t seed) {
    static const size_t widths[] = {[FLOAT32] = 4, [INT32] = 4, [INT64] = 8, [BOOL] = 1, [INT16] = 2, [FLOAT16] = 2};
    int32_t kind = tensor->type.element;
    size_t width = kind > 0 && kind <= FLOAT16 && widths[kind] ? widths[kind] : 1;
    uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
    memset(tensor->memory, 0, tensor->bytes);
    for (size_t at = 0; at + width <= tensor->bytes; at += width) {
        char *place = (char *)tensor->memory + at;
        state = state * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX generator */
        float real = (state >> 40) / 16777216.0f;
        if (kind == FLOAT32) memcpy(place, &real, 4);
        else if (kind == FLOAT16) place[1] = state >> 59; /* 0 to 31: halves below 0.01 */
        else *place = widths[kind < 0 || kind > FLOAT16 ? 0 : kind] ? state >> 63 : state >> 56;
    }
}

/* At least this many runs and seconds, but no new run after max_s; prints their microseconds as one line. */
static long repeat(const char *name, long least, double least_s) {
    size_t count = 0, room = 1024;
    double *us = malloc(room * sizeof *us), begin = now_us(), past = 0;
    while (us && (count < (size_t)least || past < least_s * 1e6) && !(count && past >= flags.max_s * 1e6)) {
        if (count == room) us = realloc(us, (room *= 2) * sizeof *us);
        if (!us) break;
        us[count++] = invoke();
        past = now_us() - begin;
    }
    if (!us) stop(1, "no memory for the figures");
    printf("%s %zu", name, count);
    for (size_t i = 0; i < count; i++) printf(" %.3f", us[i]);
    printf("\n");
    free(us);
    return count;
}

static long compute(void) {
    FILE *from = fopen(flags.input, "rb"), *to = fopen(flags.output, "wb");
    if (!from) stop(1, "cannot read: %s", flags.input);
    if (!to) stop(1, "cannot write: %s", flags.output);
    if (input_count != 1) stop(1, "the model has %zu inputs, not one: %s", input_count, flags.graph);
    size_t got, count = 0, written = 0;
    while ((got = fread(inputs[0].memory, 1, inputs[0].bytes, from)) == inputs[0].bytes) {
        invoke();
        count++;
        for (size_t i = 0; i < output_count; i++) written += fwrite(outputs[i].memory, 1, outputs[i].bytes, to);
    }
    if (got || ferror(from)) stop(1, "not a whole number of inputs of %zu bytes: %s", inputs[0].bytes, flags.input);
    if (fclose(to)) stop(1, "cannot write: %s: %s", flags.output, strerror(errno));
    printf("inputs %zu of %zu bytes\noutputs %zu bytes\n", count, inputs[0].bytes, written);
    return count;
}

int main(int count, char **values) {
    printf("edgecls runner 1\n");
    read_flags(count, values);
    load_library(values[0]);
    long before = peak_kb();
    double begin = now_us();
    load_model();
    double init = now_us() - begin;
    long loaded = peak_kb();
    printf("threads %ld\ninit_us %.3f\n", flags.threads, init);
    long done;
    if (flags.input) {
        done = compute();
    } else {
        for (size_t i = 0; i < input_count; i++) fill(&inputs[i], flags.seed + i);
        printf("first_us %.3f\n", invoke());
        repeat("warmup_us", flags.warmup, flags.warmup_s);
        done = repeat("runs_us", flags.runs, flags.run_s);
        printf("memory_kb init=%ld overall=%ld peak=%ld\n", loaded - before, peak_kb() - before, peak_kb());
    }
    printf("end %ld\n", done);
    return fflush(stdout) ? 1 : 0;
}
