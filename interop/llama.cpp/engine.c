// What a text costs in llama.cpp, out of its library: a window at once, which node-llama-cpp can only ask for token by token.
//
//   engine <libllama.so> <GGUF file> <ids> <window>     prints the mean nats of a token, a line a window; ids are an array of int32
#include <dlfcn.h>
#include <libgen.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// As llama.h declares them in the release that package.json names. All but what is set stays as the library fills it.
struct model_params {
  void *devices, *tensor_types;
  int32_t gpu_layers, split_mode, load_mode, lazy_mode, main_gpu;
  const float* tensor_split;
  void *progress, *progress_data, *overrides;
  bool vocabulary_only, check_tensors, extra_types, no_host, no_allocation, load_mtp;
};
struct context_params {
  uint32_t context, batch, physical_batch, sequences, snapshots, outputs, outputs_of_sequence;
  int32_t threads, batch_threads, context_type, rope_scaling, pooling, attention, flash_attention;
  float rope_base, rope_scale, yarn[4];
  uint32_t yarn_context;
  float defragment;
  void *evaluated, *evaluated_data;
  int32_t key_type, value_type;
  void *abort, *abort_data;
  bool embeddings, offload, no_measures, offload_operations, full_window, unified;
  void* samplers;
  size_t sampler_count;
  void* other;
};
struct batch {
  int32_t count, *ids;
  float* embeddings;
  int32_t *positions, *sequence_counts, **sequences;
  int8_t* wanted;
};

static struct {
  void (*load_all)(const char* folder);
  void (*log_set)(void (*log)(int level, const char* text, void* data), void* data);
  struct model_params (*model_defaults)(void);
  struct context_params (*context_defaults)(void);
  void* (*load)(const char* path, struct model_params params);
  void* (*context_of)(void* model, struct context_params params);
  const void* (*vocabulary_of)(const void* model);
  int32_t (*tokens_of)(const void* vocabulary);
  struct batch (*new_batch)(int32_t tokens, int32_t embedding, int32_t sequences);
  int32_t (*decode)(void* context, struct batch batch);
  float* (*logits)(void* context);
  void* (*memory_of)(const void* context);
  void (*clear)(void* memory, bool data);
} llama;

static void fail(const char* what) {
  fprintf(stderr, "%s\n", what);
  exit(1);
}

static void quiet(int level, const char* text, void* data) {
  (void)data;
  if (level == 4) fputs(text, stderr);  // errors
}

static void open_library(char* path) {
  void* library = dlopen(path, RTLD_NOW);
  if (library == NULL) fail(dlerror());
  const struct {
    const char* name;
    void* to;
  } functions[] = {
      {"ggml_backend_load_all_from_path", &llama.load_all},
      {"llama_log_set", &llama.log_set},
      {"llama_model_default_params", &llama.model_defaults},
      {"llama_context_default_params", &llama.context_defaults},
      {"llama_model_load_from_file", &llama.load},
      {"llama_init_from_model", &llama.context_of},
      {"llama_model_get_vocab", &llama.vocabulary_of},
      {"llama_vocab_n_tokens", &llama.tokens_of},
      {"llama_batch_init", &llama.new_batch},
      {"llama_decode", &llama.decode},
      {"llama_get_logits", &llama.logits},
      {"llama_get_memory", &llama.memory_of},
      {"llama_memory_clear", &llama.clear},
  };
  for (size_t i = 0; i < sizeof functions / sizeof *functions; ++i) {
    void* found = dlsym(library, functions[i].name);
    if (found == NULL) fail(functions[i].name);
    memcpy(functions[i].to, &found, sizeof found);
  }
  llama.log_set(quiet, NULL);
  llama.load_all(dirname(path));
}

// Puts ids from the first position on through the model, with logits after each of them.
static void run(void* context, struct batch batch, const int32_t* ids, int32_t count) {
  batch.count = count;
  for (int32_t i = 0; i < count; ++i) {
    batch.ids[i] = ids[i], batch.positions[i] = i;
    batch.sequence_counts[i] = 1, batch.sequences[i][0] = 0;
    batch.wanted[i] = 1;
  }
  if (llama.decode(context, batch) != 0) fail("llama_decode failed.");
}

// Minus the logarithm of how likely `id` is.
static double nats_of(const float* logits, int32_t tokens, int32_t id) {
  float most = logits[0];
  for (int32_t i = 1; i < tokens; ++i)
    if (logits[i] > most) most = logits[i];
  double sum = 0.0;
  for (int32_t i = 0; i < tokens; ++i) sum += exp((double)(logits[i] - most));
  return log(sum) - (double)(logits[id] - most);
}

int main(int count, char** words) {
  if (count != 5) fail("engine <libllama.so> <GGUF file> <ids> <window>");
  open_library(words[1]);
  FILE* file = fopen(words[3], "rb");
  if (file == NULL || fseek(file, 0, SEEK_END) != 0) fail(words[3]);
  const int32_t total = (int32_t)(ftell(file) / 4), window = atoi(words[4]);
  int32_t* ids = malloc((size_t)total * 4);
  rewind(file);
  if (fread(ids, 4, (size_t)total, file) != (size_t)total) fail(words[3]);
  if (window < 1 || total <= window) fail("There are too few ids for a window.");

  struct model_params model_params = llama.model_defaults();
  model_params.gpu_layers = 0;
  void* model = llama.load(words[2], model_params);
  if (model == NULL) fail("llama.cpp does not load the file.");
  struct context_params params = llama.context_defaults();
  params.context = params.batch = params.physical_batch = (uint32_t)window;
  params.threads = params.batch_threads = 2;
  params.key_type = params.value_type = 0, params.flash_attention = 0;  // float32, as it is computed
  void* context = llama.context_of(model, params);
  if (context == NULL) fail("llama.cpp makes no context.");
  const int32_t tokens = llama.tokens_of(llama.vocabulary_of(model));
  const struct batch batch = llama.new_batch(window, 0, 1);
  for (int32_t at = 0; at + window < total; at += window) {
    double nats = 0.0;
    llama.clear(llama.memory_of(context), true);
    run(context, batch, ids + at, window);
    const float* logits = llama.logits(context);
    for (int32_t i = 0; i < window; ++i) nats += nats_of(logits + (size_t)i * (size_t)tokens, tokens, ids[at + i + 1]);
    printf("%.9g\n", nats / window);
  }
  return 0;
}
