// ggml's own quantizer and decoders, out of a library of llama.cpp: what bench/ggml.mjs and gguf.test.mjs hold hqq against.
//
//   ggml <libggml-base.so> quantize <type> <columns> <weights> <blocks> [importance]     prints seconds, the best of three
//   ggml <libggml-base.so> decode <type> <blocks> <weights>
//   ggml <libllama.so> model <file type> <pure: 0 or 1> <GGUF file of floats> <GGUF file>
//
// Files are arrays of float32, or blocks; types are ggml's numbers, file types llama.cpp's.
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// As ggml.h declares them.
typedef size_t (*quantize_chunk)(int type, const float* from, void* to, int64_t start, int64_t rows, int64_t columns,
                                 const float* importance);
struct type_traits {
  const char* name;
  int64_t block, interleave;
  size_t bytes;
  bool quantized;
  void (*to_float)(const void* from, float* to, int64_t count);
};
struct init_params {
  size_t bytes;
  void* memory;
  bool no_allocation;
};

// The beginning of llama.h's; the rest is as the library fills it.
struct quantize_params {
  int32_t threads, file_type, output_type, embedding_type;
  bool allow_requantize, quantize_output, only_copy, pure;
  char rest[1024];
};

static void fail(const char* what) {
  fprintf(stderr, "%s\n", what);
  exit(1);
}

static void* loaded(const char* path, size_t* bytes) {
  FILE* file = fopen(path, "rb");
  if (file == NULL || fseek(file, 0, SEEK_END) != 0) fail(path);
  *bytes = (size_t)ftell(file);
  rewind(file);
  void* data = malloc(*bytes);
  if (data == NULL || fread(data, 1, *bytes, file) != *bytes) fail(path);
  fclose(file);
  return data;
}

static void save(const char* path, const void* data, size_t bytes) {
  FILE* file = fopen(path, "wb");
  if (file == NULL || fwrite(data, 1, bytes, file) != bytes || fclose(file) != 0) fail(path);
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int main(int count, char** words) {
  if (count < 6) fail("ggml <library> quantize|decode ...");
  void* library = dlopen(words[1], RTLD_NOW);
  if (library == NULL) fail(dlerror());
  if (strcmp(words[2], "model") == 0) {
    struct quantize_params (*defaults)(void) =
        (struct quantize_params(*)(void))dlsym(library, "llama_model_quantize_default_params");
    uint32_t (*quantize_model)(const char*, const char*, const struct quantize_params*) =
        (uint32_t(*)(const char*, const char*, const struct quantize_params*))dlsym(library, "llama_model_quantize");
    if (defaults == NULL || quantize_model == NULL || count < 7) fail("The library is not one that is known.");
    struct quantize_params params = defaults();
    params.threads = 2;
    params.file_type = atoi(words[3]);
    params.pure = atoi(words[4]) != 0;
    return quantize_model(words[5], words[6], &params) == 0 ? 0 : 1;
  }
  void* (*init)(struct init_params) = (void* (*)(struct init_params))dlsym(library, "ggml_init");
  const struct type_traits* (*traits_of)(int) =
      (const struct type_traits* (*)(int))dlsym(library, "ggml_get_type_traits");
  quantize_chunk quantize = (quantize_chunk)dlsym(library, "ggml_quantize_chunk");
  if (init == NULL || traits_of == NULL || quantize == NULL) fail("The library is not one that is known.");
  init((struct init_params){1 << 16, NULL, false});  // which fills its tables
  const int type = atoi(words[3]);
  const struct type_traits* traits = traits_of(type);
  size_t bytes;
  if (strcmp(words[2], "decode") == 0) {
    const void* blocks = loaded(words[4], &bytes);
    const int64_t weights = (int64_t)(bytes / traits->bytes) * traits->block;
    float* out = malloc((size_t)weights * sizeof(float));
    traits->to_float(blocks, out, weights);
    save(words[5], out, (size_t)weights * sizeof(float));
    return 0;
  }
  if (count < 7) fail("ggml <library> quantize <type> <columns> <weights> <blocks> [importance]");
  const int64_t columns = atoll(words[4]);
  const float* weights = loaded(words[5], &bytes);
  const int64_t total = (int64_t)(bytes / sizeof(float));
  const float* importance = count > 7 ? loaded(words[7], &bytes) : NULL;
  const size_t size = (size_t)(total / traits->block) * traits->bytes;
  void* blocks = malloc(size);
  double best = 1e9;
  for (int i = 0; i < 3; ++i) {
    const double start = seconds();
    quantize(type, weights, blocks, 0, total / columns, columns, importance);
    const double took = seconds() - start;
    if (took < best) best = took;
  }
  save(words[6], blocks, size);
  printf("%.9f\n", best);
  return 0;
}
