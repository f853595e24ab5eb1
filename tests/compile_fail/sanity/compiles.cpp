// The machinery must report: the variant compiles.
// expected-error 1: "anything"
int main() {}
