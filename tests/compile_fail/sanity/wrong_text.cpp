// The machinery must report: the compiler says something else.
// expected-error 1: "a sentence that no compiler prints"
#if SHOULD_FAIL == 1
static_assert(false, "another sentence");
#endif
int main() {}
