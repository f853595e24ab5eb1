#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#define PLAYED_ADDRESS_SANITIZER
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PLAYED_ADDRESS_SANITIZER
#endif
#endif
#if defined(PLAYED_ADDRESS_SANITIZER)
#include <sanitizer/common_interface_defs.h>
#endif

// A function with a stack of its own that runs until it steps back to whoever resumed it. The system's
// own switch asks the kernel about signals each time, which is too slow for a thread per fiber.

#if defined(__x86_64__)
extern "C" void played_switch_stacks(void** save, void* to);
asm(R"(
  .pushsection .text
  .weak played_switch_stacks
  .type played_switch_stacks, @function
played_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size played_switch_stacks, .-played_switch_stacks
  .popsection
)");
#endif

namespace played {

class fiber {
 public:
  using entry = void (*)(void*);

  /// `run(argument)` must never return: it steps back instead.
  fiber(entry run, void* argument) : run_(run), argument_(argument) {
    memory_ =
        mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED) throw std::bad_alloc();
#if defined(__x86_64__)
    auto* const top = reinterpret_cast<void**>(static_cast<std::byte*>(memory_) + stack_bytes);
    void** at = top - 1;  // as if called: rsp is 8 beside a multiple of 16
    *at = nullptr;
    *--at = reinterpret_cast<void*>(&begin);
    for (int saved = 0; saved < 6; ++saved) *--at = nullptr;
    own_ = at;
#else
    getcontext(&own_);
    own_.uc_stack.ss_sp = memory_;
    own_.uc_stack.ss_size = stack_bytes;
    own_.uc_link = nullptr;
    makecontext(&own_, &begin, 0);
#endif
  }
  fiber(const fiber&) = delete;
  fiber& operator=(const fiber&) = delete;
  ~fiber() {
    munmap(memory_, stack_bytes);
  }

  /// Runs it until it steps back.
  void resume() {
    current() = this;
#if defined(PLAYED_ADDRESS_SANITIZER)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, memory_, stack_bytes);
#endif
    swap_in();
#if defined(PLAYED_ADDRESS_SANITIZER)
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  }

  /// From inside the fiber that runs.
  static void step_back() {
    fiber* const self = current();
#if defined(PLAYED_ADDRESS_SANITIZER)
    __sanitizer_start_switch_fiber(&self->fake_, self->outer_, self->outer_bytes_);
#endif
    self->swap_out();
#if defined(PLAYED_ADDRESS_SANITIZER)
    __sanitizer_finish_switch_fiber(self->fake_, &self->outer_, &self->outer_bytes_);
#endif
  }

 private:
  static constexpr std::size_t stack_bytes = 256 * 1024;  // touched pages alone count

  static fiber*& current() {
    static fiber* running = nullptr;
    return running;
  }

  static void begin() {
    fiber* const self = current();
#if defined(PLAYED_ADDRESS_SANITIZER)
    __sanitizer_finish_switch_fiber(nullptr, &self->outer_, &self->outer_bytes_);
#endif
    self->run_(self->argument_);
  }

#if defined(__x86_64__)
  void swap_in() {
    played_switch_stacks(&resumer_, own_);
  }
  void swap_out() {
    played_switch_stacks(&own_, resumer_);
  }
  void* own_ = nullptr;
  void* resumer_ = nullptr;
#else
  void swap_in() {
    swapcontext(&resumer_, &own_);
  }
  void swap_out() {
    swapcontext(&own_, &resumer_);
  }
  ucontext_t own_{};
  ucontext_t resumer_{};
#endif

  entry run_;
  void* argument_;
  void* memory_ = nullptr;
#if defined(PLAYED_ADDRESS_SANITIZER)
  void* fake_ = nullptr;
  const void* outer_ = nullptr;
  std::size_t outer_bytes_ = 0;
#endif
};

}  // namespace played
