// The machinery must report: nothing is promised.
int main() {}
