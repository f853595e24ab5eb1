// The machinery must report: the good variant does not compile either.
// expected-error 1: "broken in every variant"
static_assert(false, "broken in every variant");
int main() {}
