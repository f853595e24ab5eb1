// Proves: the component io brings what safetensors.hpp needs. Against: the compiler.
#if __has_include(<dualsft/io/safetensors.hpp>)
#include <dualsft/io/safetensors.hpp>
#endif
#include <nlohmann/json.hpp>

int main() {
  return nlohmann::json::parse("{}").empty() ? 0 : 1;
}
