// SPDX-License-Identifier: Apache-2.0
#include "report.hpp"

#include <dualsft/io/atomic_file.hpp>
#include <nlohmann/json.hpp>
#include <ostream>

#include "../score_output.hpp"
#include "../terminal.hpp"
#include "numbers.hpp"
#include "page.hpp"
#include "reader.hpp"

namespace dualsft::cli {

void run_report(const report_options& options, std::ostream& out) {
  constexpr const char* name = "report.html";
  const recorded_run run = read_run_folder(options.folder);
  const std::string page = report_page(run);
  stop_if_interrupted();

  staged_folder folder(options.folder);
  folder.add(name, [&](const std::string& path) {
    atomic_file file(path);
    file.write(page);
    file.commit();
  });
  stop_if_interrupted();
  folder.publish();

  const std::string path = options.folder + "/" + name;
  if (options.json) {
    const nlohmann::ordered_json summary{{"report", path},
                                         {"bytes", page.size()},
                                         {"read", run.read},
                                         {"absent", run.absent},
                                         {"examples", run.summary.examples},
                                         {"selected_examples", run.summary.data_budget},
                                         {"parameters", run.summary.parameters},
                                         {"selected_parameters", run.summary.parameter_budget}};
    using json = nlohmann::ordered_json;
    out << summary.dump(2, ' ', false, json::error_handler_t::replace) << "\n";
    return;
  }
  out << "written  " << path << " (" << bytes_text(static_cast<index_t>(page.size())) << ")\n";
  for (const std::string& file : run.absent) out << "absent   " << file << "\n";
}

}  // namespace dualsft::cli
